"""Registered endpoints, the secrets that still sign during a rotation, and lanes of the outbox.

A lane is what one endpoint's deliveries share. Fresh ones lie in it by id, so that taking one touches no index (it
stays HOT); those to be tried again lie in it by their time.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

DDL = """
CREATE TABLE endpoints (
    id uuid PRIMARY KEY,
    tenant integer NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    secret text NOT NULL,
    retired json NOT NULL DEFAULT '[]',
    enabled boolean NOT NULL DEFAULT true
);

ALTER TABLE tenants ADD COLUMN retired json NOT NULL DEFAULT '[]';

ALTER TABLE deliveries
    ALTER COLUMN job DROP NOT NULL,
    ADD COLUMN batch uuid,
    ADD COLUMN endpoint uuid,
    ADD COLUMN lane uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000001',
    ADD COLUMN retried boolean NOT NULL DEFAULT false,
    ADD COLUMN tries smallint NOT NULL DEFAULT 0,
    ADD COLUMN give_up_at timestamptz NOT NULL DEFAULT now() + interval '4 days';

DROP INDEX deliveries_next_at_idx;

CREATE INDEX deliveries_fresh ON deliveries (lane, id) WHERE status = 'pending' AND NOT retried;

CREATE INDEX deliveries_retried ON deliveries (lane, next_at) WHERE status = 'pending' AND retried;

CREATE INDEX deliveries_dead ON deliveries (tenant, id) WHERE status = 'dead';

CREATE INDEX deliveries_job ON deliveries (job);
"""


def upgrade() -> None:
    for statement in DDL.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX deliveries_fresh, deliveries_retried, deliveries_dead, deliveries_job")
    op.execute("DELETE FROM deliveries WHERE job IS NULL")
    op.execute(
        "ALTER TABLE deliveries ALTER COLUMN job SET NOT NULL, DROP COLUMN batch, DROP COLUMN endpoint,"
        " DROP COLUMN lane, DROP COLUMN retried, DROP COLUMN tries, DROP COLUMN give_up_at"
    )
    op.execute("CREATE INDEX deliveries_next_at_idx ON deliveries (next_at) WHERE status = 'pending'")
    op.execute("ALTER TABLE tenants DROP COLUMN retired")
    op.execute("DROP TABLE endpoints")
