"""Jobs, what they were asked, what came of them, and who runs them.

Three sibling tables hold a job, partitioned alike by ranges of its id, a day each (UUIDv7 is time): the narrow `jobs`
row changes on the hot path and has no index on what changes (its updates stay HOT), `requests` and `results` are
written once.
"""

import base64
import os

from alembic import op

revision = "0001"
down_revision = None

DDL = """
CREATE TABLE tenants (
    id integer PRIMARY KEY,
    name text NOT NULL UNIQUE,
    webhook_secret text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE versions (
    model text NOT NULL,
    version text NOT NULL,
    pool text NOT NULL,
    input_type text NOT NULL,
    output_type text NOT NULL,
    input_schema json,
    output_schema json,
    max_batch integer NOT NULL,
    max_wait double precision NOT NULL,
    max_cost bigint,
    timeout double precision,
    example json,
    registered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model, version)
);

CREATE TABLE aliases (
    model text NOT NULL,
    alias text NOT NULL,
    weights json NOT NULL,
    PRIMARY KEY (model, alias)
);

CREATE TABLE workers (
    id uuid PRIMARY KEY,
    pool text NOT NULL,
    device text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    models text[] NOT NULL,
    state text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    tenant integer NOT NULL,
    model text NOT NULL,
    version text NOT NULL,
    priority smallint NOT NULL,
    lane smallint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now(),
    status smallint NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    deaths smallint NOT NULL DEFAULT 0,
    cancel_requested boolean NOT NULL DEFAULT false,
    claim uuid,
    finished_at timestamptz
) PARTITION BY RANGE (id);

CREATE TABLE requests (
    id uuid PRIMARY KEY,
    tenant integer NOT NULL,
    content_type text NOT NULL,
    size bigint NOT NULL,
    body bytea,
    blob text,
    metadata bytea,
    webhook text,
    timeout double precision,
    expires_in double precision NOT NULL,
    sticky_key text,
    retry_of uuid,
    batch uuid,
    shadow_of uuid,
    CHECK ((body IS NULL) <> (blob IS NULL))
) PARTITION BY RANGE (id);

CREATE TABLE results (
    id uuid PRIMARY KEY,
    tenant integer NOT NULL,
    attempt integer NOT NULL,
    content_type text,
    size bigint,
    body bytea,
    blob text,
    error bytea,
    started_at timestamptz,
    predict_ms double precision,
    batch_size integer,
    worker uuid
) PARTITION BY RANGE (id);

CREATE TABLE claims (
    id uuid PRIMARY KEY,
    worker uuid NOT NULL,
    jobs uuid[] NOT NULL,
    attempts integer[] NOT NULL,
    lease_until timestamptz NOT NULL,
    started_at timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE marks (
    model text NOT NULL,
    version text NOT NULL,
    lane smallint NOT NULL,
    priority smallint NOT NULL,
    low uuid NOT NULL,
    PRIMARY KEY (model, version, lane, priority)
) WITH (fillfactor = 50);

CREATE TABLE deliveries (
    id uuid PRIMARY KEY,
    tenant integer NOT NULL,
    job uuid NOT NULL,
    event text NOT NULL,
    url text NOT NULL,
    body bytea NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    attempts json NOT NULL DEFAULT '[]',
    next_at timestamptz DEFAULT now()
) PARTITION BY RANGE (id);
CREATE INDEX ON deliveries (next_at) WHERE status = 'pending';
"""

TABLES = ["deliveries", "marks", "claims", "results", "requests", "jobs", "workers", "aliases", "versions", "tenants"]


def upgrade() -> None:
    for statement in DDL.split(";\n"):
        if statement.strip():
            op.execute(statement)
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    op.execute(f"INSERT INTO tenants (id, name, webhook_secret) VALUES (1, 'default', '{secret}')")


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")
