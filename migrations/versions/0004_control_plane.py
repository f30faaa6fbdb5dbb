"""The control plane: an alias' shadow, what is paused, and what a worker tells of itself with each heart-beat.

Expand only: what ran before this migration runs beside it.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

DDL = """
ALTER TABLE aliases ADD COLUMN shadow text;

ALTER TABLE workers ADD COLUMN memory_total bigint, ADD COLUMN memory_used bigint, ADD COLUMN batch_size integer,
    ADD COLUMN jobs_per_s double precision, ADD COLUMN job_ms double precision;

CREATE TABLE pauses (
    kind text NOT NULL,
    name text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
);
"""


def upgrade() -> None:
    for statement in DDL.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE pauses")
    op.execute(
        "ALTER TABLE workers DROP COLUMN memory_total, DROP COLUMN memory_used, DROP COLUMN batch_size,"
        " DROP COLUMN jobs_per_s, DROP COLUMN job_ms"
    )
    op.execute("ALTER TABLE aliases DROP COLUMN shadow")
