"""What a request with a key was answered after it had waited stands beside its first answer, and goes with its job.

Expand only: what ran before this migration runs beside it.
"""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("ALTER TABLE idempotency ADD COLUMN ended bytea")
    op.execute("CREATE INDEX ON idempotency (location) WHERE ended IS NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE idempotency DROP COLUMN ended")
