"""The artifact of a version, where the models of a worker lie, and how often a job was claimed in vain.

Expand only: what ran before this migration runs beside it.
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("ALTER TABLE versions ADD COLUMN artifact text")
    op.execute("ALTER TABLE workers ADD COLUMN places json NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE jobs ADD COLUMN vain smallint NOT NULL DEFAULT 0")


def downgrade() -> None:
    op.execute("ALTER TABLE versions DROP COLUMN artifact")
    op.execute("ALTER TABLE workers DROP COLUMN places")
    op.execute("ALTER TABLE jobs DROP COLUMN vain")
