"""Batch files: what is asked of each, how far it has come, and its lines.

Expand only: what ran before this migration runs beside it.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

DDL = """
CREATE TABLE batches (
    id uuid PRIMARY KEY,
    tenant integer NOT NULL,
    model text NOT NULL,
    blob text NOT NULL,
    etag text NOT NULL,
    size bigint NOT NULL,
    webhook text,
    metadata bytea,
    expires_at timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'validating',
    cancel_requested boolean NOT NULL DEFAULT false,
    fault bytea,
    at_byte bigint NOT NULL DEFAULT 0,
    at_line integer NOT NULL DEFAULT 0,
    first_job uuid,
    last_job uuid,
    total integer NOT NULL DEFAULT 0,
    running integer NOT NULL DEFAULT 0,
    succeeded integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    canceled integer NOT NULL DEFAULT 0,
    output text,
    errors text,
    due_at timestamptz DEFAULT now(),
    finished_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX ON batches (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE batch_lines (
    batch uuid NOT NULL,
    line integer NOT NULL,
    custom_id text,
    job uuid,
    error bytea,
    PRIMARY KEY (batch, line)
);
CREATE INDEX ON batch_lines (batch, custom_id);
"""


def upgrade() -> None:
    for statement in DDL.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE batch_lines")
    op.execute("DROP TABLE batches")
