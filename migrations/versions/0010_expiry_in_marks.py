"""A queue's mark says when the next of its jobs expires, and when the first that waits was sent: what is older need not
be looked at each time.

Expand only: what ran before this migration runs beside it, and looks all the same.
"""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("ALTER TABLE marks ADD COLUMN sent_at timestamptz, ADD COLUMN expires_at timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE marks DROP COLUMN sent_at, DROP COLUMN expires_at")
