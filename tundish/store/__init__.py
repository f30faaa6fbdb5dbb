"""Every statement of the jobs' way through Postgres, as verbs.

A verb takes a Connection inside a transaction. Workers and chores call it; the API, which is async, hands it to
`AsyncConnection.run_sync`, so that each statement is written once.

Two rules keep the hot path fast. Updates touch no indexed column (they stay HOT). And each statement that names ids
says `id BETWEEN` their smallest and largest: `id = ANY` alone does not prune partitions under a generic plan.
"""

from tundish.store.catalog import (
    Catalog,
    Worker,
    catalog,
    forget_workers,
    register,
    see_worker,
    webhook_secret,
    workers,
)
from tundish.store.claims import ClaimedJob, Finished, Requeued, Unsent, claim, reap, record, release, renew, start
from tundish.store.connect import (
    DEFAULT_TENANT,
    AsyncEngine,
    Connection,
    Engine,
    PoolTimeout,
    RowError,
    StoreError,
    async_engine,
    engine,
    run,
    single,
)
from tundish.store.deliveries import Delivery, Due, deliver, due, settle, webhooks_of
from tundish.store.jobs import (
    JobRow,
    Listing,
    NewJob,
    Payload,
    Search,
    cancel,
    list_jobs,
    read,
    read_input,
    read_output,
    submit,
)
from tundish.store.partitions import make_partitions, missing_days, release_lock, revision
from tundish.store.sweeps import (
    Backlog,
    advance_marks,
    backlog,
    expire,
    lock,
    low_water,
    past_retention,
    queues,
    unsent,
)
from tundish.version import Version

__all__ = [
    "DEFAULT_TENANT",
    "AsyncEngine",
    "Backlog",
    "Catalog",
    "ClaimedJob",
    "Connection",
    "Delivery",
    "Due",
    "Engine",
    "Finished",
    "JobRow",
    "Listing",
    "NewJob",
    "Payload",
    "PoolTimeout",
    "Requeued",
    "RowError",
    "Search",
    "StoreError",
    "Unsent",
    "Version",
    "Worker",
    "advance_marks",
    "async_engine",
    "backlog",
    "cancel",
    "catalog",
    "claim",
    "deliver",
    "due",
    "engine",
    "expire",
    "forget_workers",
    "list_jobs",
    "lock",
    "low_water",
    "make_partitions",
    "missing_days",
    "past_retention",
    "queues",
    "read",
    "read_input",
    "read_output",
    "reap",
    "record",
    "register",
    "release",
    "release_lock",
    "renew",
    "revision",
    "run",
    "see_worker",
    "settle",
    "single",
    "start",
    "submit",
    "unsent",
    "webhook_secret",
    "webhooks_of",
    "workers",
]
