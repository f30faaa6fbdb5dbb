aliases
    model text NOT NULL
    alias text NOT NULL
    weights json NOT NULL
    shadow text
    PRIMARY KEY (model, alias)

batch_lines
    batch uuid NOT NULL
    line integer NOT NULL
    custom_id text
    job uuid
    error bytea
    CREATE INDEX batch_lines_batch_custom_id_idx ON public.batch_lines USING btree (batch, custom_id)
    PRIMARY KEY (batch, line)

batches
    id uuid NOT NULL
    tenant integer NOT NULL
    model text NOT NULL
    blob text NOT NULL
    etag text NOT NULL
    size bigint NOT NULL
    webhook text
    metadata bytea
    expires_at timestamp with time zone NOT NULL
    status text NOT NULL DEFAULT 'validating'::text
    cancel_requested boolean NOT NULL DEFAULT false
    fault bytea
    at_byte bigint NOT NULL DEFAULT 0
    at_line integer NOT NULL DEFAULT 0
    first_job uuid
    last_job uuid
    total integer NOT NULL DEFAULT 0
    running integer NOT NULL DEFAULT 0
    succeeded integer NOT NULL DEFAULT 0
    failed integer NOT NULL DEFAULT 0
    canceled integer NOT NULL DEFAULT 0
    output text
    errors text
    due_at timestamp with time zone DEFAULT now()
    finished_at timestamp with time zone
    CREATE INDEX batches_due_at_idx ON public.batches USING btree (due_at) WHERE (due_at IS NOT NULL)
    PRIMARY KEY (id)
    fillfactor=50

claims
    id uuid NOT NULL
    worker uuid NOT NULL
    jobs uuid[] NOT NULL
    attempts integer[] NOT NULL
    lease_until timestamp with time zone NOT NULL
    started_at timestamp with time zone
    overdue boolean NOT NULL DEFAULT false
    dropped uuid[] NOT NULL DEFAULT '{}'::uuid[]
    PRIMARY KEY (id)
    autovacuum_vacuum_scale_factor=0
    autovacuum_vacuum_threshold=1000
    fillfactor=50

deliveries
    id uuid NOT NULL
    tenant integer NOT NULL
    job uuid
    event text NOT NULL
    url text NOT NULL
    body bytea NOT NULL
    status text NOT NULL DEFAULT 'pending'::text
    attempts json NOT NULL DEFAULT '[]'::json
    next_at timestamp with time zone DEFAULT now()
    batch uuid
    endpoint uuid
    lane uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000001'::uuid
    retried boolean NOT NULL DEFAULT false
    tries smallint NOT NULL DEFAULT 0
    give_up_at timestamp with time zone NOT NULL DEFAULT (now() + '4 days'::interval)
    CREATE INDEX deliveries_dead ON ONLY public.deliveries USING btree (tenant, id) WHERE (status = 'dead'::text)
    CREATE INDEX deliveries_fresh ON ONLY public.deliveries USING btree (lane, id) WHERE ((status = 'pending'::text) AND (NOT retried))
    CREATE INDEX deliveries_job ON ONLY public.deliveries USING btree (job)
    CREATE INDEX deliveries_retried ON ONLY public.deliveries USING btree (lane, next_at) WHERE ((status = 'pending'::text) AND retried)
    PRIMARY KEY (id)
    RANGE (id)

endpoints
    id uuid NOT NULL
    tenant integer NOT NULL
    url text NOT NULL
    events text[] NOT NULL
    secret text NOT NULL
    retired json NOT NULL DEFAULT '[]'::json
    enabled boolean NOT NULL DEFAULT true
    PRIMARY KEY (id)

idempotency
    tenant integer NOT NULL
    method text NOT NULL
    path text NOT NULL
    key text NOT NULL
    fingerprint bytea NOT NULL
    status smallint NOT NULL
    location text
    body bytea NOT NULL
    created_at timestamp with time zone NOT NULL DEFAULT now()
    ended bytea
    CREATE INDEX idempotency_created_at_idx ON public.idempotency USING btree (created_at)
    CREATE INDEX idempotency_location_idx ON public.idempotency USING btree (location) WHERE (ended IS NOT NULL)
    PRIMARY KEY (tenant, method, path, key)

jobs
    id uuid NOT NULL
    tenant integer NOT NULL
    model text NOT NULL
    version text NOT NULL
    priority smallint NOT NULL
    lane smallint NOT NULL DEFAULT 0
    expires_at timestamp with time zone NOT NULL
    sent_at timestamp with time zone NOT NULL DEFAULT now()
    status smallint NOT NULL DEFAULT 0
    attempt integer NOT NULL DEFAULT 0
    deaths smallint NOT NULL DEFAULT 0
    cancel_requested boolean NOT NULL DEFAULT false
    claim uuid
    finished_at timestamp with time zone
    alone boolean NOT NULL DEFAULT false
    vain smallint NOT NULL DEFAULT 0
    PRIMARY KEY (id)
    RANGE (id)

marks
    model text NOT NULL
    version text NOT NULL
    lane smallint NOT NULL
    priority smallint NOT NULL
    low uuid NOT NULL
    sent_at timestamp with time zone
    expires_at timestamp with time zone
    PRIMARY KEY (model, version, lane, priority)
    fillfactor=50

pauses
    kind text NOT NULL
    name text NOT NULL
    paused_at timestamp with time zone NOT NULL DEFAULT now()
    PRIMARY KEY (kind, name)

requests
    id uuid NOT NULL
    tenant integer NOT NULL
    content_type text NOT NULL
    size bigint NOT NULL
    body bytea
    blob text
    metadata bytea
    webhook text
    timeout double precision
    expires_in double precision NOT NULL
    sticky_key text
    retry_of uuid
    batch uuid
    shadow_of uuid
    input_url text
    etag text
    CHECK ((num_nonnulls(body, blob, input_url) = 1)) NOT VALID
    PRIMARY KEY (id)
    RANGE (id)

results
    id uuid NOT NULL
    tenant integer NOT NULL
    attempt integer NOT NULL
    content_type text
    size bigint
    body bytea
    blob text
    error bytea
    started_at timestamp with time zone
    predict_ms double precision
    batch_size integer
    worker uuid
    PRIMARY KEY (id)
    RANGE (id)

tenants
    id integer NOT NULL
    name text NOT NULL
    webhook_secret text NOT NULL
    created_at timestamp with time zone NOT NULL DEFAULT now()
    retired json NOT NULL DEFAULT '[]'::json
    CREATE UNIQUE INDEX tenants_name_key ON public.tenants USING btree (name)
    PRIMARY KEY (id)
    UNIQUE (name)

uploads
    id uuid NOT NULL
    tenant integer NOT NULL
    content_type text NOT NULL
    size bigint NOT NULL
    sha256 text
    etag text
    expires_at timestamp with time zone NOT NULL
    kept_until timestamp with time zone NOT NULL
    CREATE INDEX uploads_kept_until_idx ON public.uploads USING btree (kept_until)
    PRIMARY KEY (id)

versions
    model text NOT NULL
    version text NOT NULL
    pool text NOT NULL
    input_type text NOT NULL
    output_type text NOT NULL
    input_schema json
    output_schema json
    max_batch integer NOT NULL
    max_wait double precision NOT NULL
    max_cost bigint
    timeout double precision
    example json
    registered_at timestamp with time zone NOT NULL DEFAULT now()
    artifact text
    PRIMARY KEY (model, version)

workers
    id uuid NOT NULL
    pool text NOT NULL
    device text NOT NULL
    host text NOT NULL
    pid integer NOT NULL
    models text[] NOT NULL
    state text NOT NULL
    started_at timestamp with time zone NOT NULL DEFAULT now()
    seen_at timestamp with time zone NOT NULL DEFAULT now()
    memory_total bigint
    memory_used bigint
    batch_size integer
    jobs_per_s double precision
    job_ms double precision
    places json NOT NULL DEFAULT '{}'::json
    PRIMARY KEY (id)
    fillfactor=50
