"""Uploads, and the ETag by which a job pins the one that it reads.

Expand only: what ran before this migration runs beside it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

DDL = """
CREATE TABLE uploads (
    id uuid PRIMARY KEY,
    tenant integer NOT NULL,
    content_type text NOT NULL,
    size bigint NOT NULL,
    sha256 text,
    etag text,
    expires_at timestamptz NOT NULL,
    kept_until timestamptz NOT NULL
);
CREATE INDEX ON uploads (kept_until);

ALTER TABLE requests ADD COLUMN etag text;
"""


def upgrade() -> None:
    for statement in DDL.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE requests DROP COLUMN etag")
    op.execute("DROP TABLE uploads")
