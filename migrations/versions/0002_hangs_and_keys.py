"""Jobs that must run alone, claims over their time-out, and the answers that idempotency keys hold.

Expand only: what ran before this migration runs beside it.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

DDL = """
ALTER TABLE jobs ADD COLUMN alone boolean NOT NULL DEFAULT false;

ALTER TABLE claims ADD COLUMN overdue boolean NOT NULL DEFAULT false;

ALTER TABLE claims ADD COLUMN dropped uuid[] NOT NULL DEFAULT '{}';

CREATE TABLE idempotency (
    tenant integer NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint NOT NULL,
    location text,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, method, path, key)
);
CREATE INDEX ON idempotency (created_at);
"""


def upgrade() -> None:
    for statement in DDL.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE idempotency")
    op.execute("ALTER TABLE claims DROP COLUMN overdue, DROP COLUMN dropped")
    op.execute("ALTER TABLE jobs DROP COLUMN alone")
