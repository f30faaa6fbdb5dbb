"""Jobs whose input lies at a URL.

Expand only: what ran before this migration runs beside it. Workers of before fail a job with an `input_url`: replace
them first, and the API then.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

# NOT VALID: what is there passed the narrower check, and need not be read under a lock.
DDL = """
ALTER TABLE requests ADD COLUMN input_url text;

ALTER TABLE requests DROP CONSTRAINT requests_check;

ALTER TABLE requests ADD CONSTRAINT requests_check CHECK (num_nonnulls(body, blob, input_url) = 1) NOT VALID;
"""


def upgrade() -> None:
    for statement in DDL.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE requests DROP CONSTRAINT requests_check")
    op.execute("ALTER TABLE requests DROP COLUMN input_url")
    op.execute("ALTER TABLE requests ADD CONSTRAINT requests_check CHECK ((body IS NULL) <> (blob IS NULL)) NOT VALID")
