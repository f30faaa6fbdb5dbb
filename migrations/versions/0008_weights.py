"""Weights: the artifact of a version, and where the models of a worker lie.

Expand only: what ran before this migration runs beside it.
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("ALTER TABLE versions ADD COLUMN artifact text")
    op.execute("ALTER TABLE workers ADD COLUMN places json NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    op.execute("ALTER TABLE versions DROP COLUMN artifact")
    op.execute("ALTER TABLE workers DROP COLUMN places")
