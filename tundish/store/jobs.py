"""Submit, read, list, cancel: what the API does with jobs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.ids import seconds_of, shadow_id
from tundish.job import Priority, Status
from tundish.queue import Queue
from tundish.store.arrays import Rows, array
from tundish.store.connect import span
from tundish.store.statement import Statement


class NewJob(NamedTuple):
    """A job as it is submitted. `body` or `blob` holds the input of `size` bytes; `etag` pins a blob that is an upload,
    which its caller may overwrite. Or `input_url` leads to it: then `size` is 0, and `content_type` is what the model
    takes. `shadow` is stored with it: its copy for another version, whose `shadow_of` is this job's id."""

    id: UUID
    tenant: int
    model: str
    version: str
    priority: Priority
    expires_in: float
    content_type: str
    size: int
    body: bytes | None
    blob: str | None = None
    metadata: bytes | None = None
    webhook: str | None = None
    timeout: float | None = None
    sticky_key: str | None = None
    retry_of: UUID | None = None
    input_url: str | None = None
    shadow_of: UUID | None = None
    shadow: "NewJob | None" = None
    etag: str | None = None

    @property
    def queue(self) -> Queue:
        return Queue(self.model, self.version, self.priority)

    def shadowed(self, version: str) -> "NewJob":
        """With a copy for another version: behind everything else, and told to nobody. Its input is not checked against
        that version's schema: that it does not fit is what the comparison shall show."""
        copy = self._replace(
            id=shadow_id(self.id),
            version=version,
            priority=Priority.LOW,
            webhook=None,
            sticky_key=None,
            shadow_of=self.id,
        )
        return self._replace(shadow=copy)


_NEW = Rows(
    {
        "id": "uuid",
        "tenant": "int4",
        "model": "text",
        "version": "text",
        "priority": "int2",
        "expires_in": "float8",
        "content_type": "text",
        "size": "int8",
        "body": "bytea",
        "blob": "text",
        "metadata": "bytea",
        "webhook": "text",
        "timeout": "float8",
        "sticky_key": "text",
        "retry_of": "uuid",
        "input_url": "text",
        "shadow_of": "uuid",
        "etag": "text",
    }
)
#: Seconds that an id may be old when the statement that stores its job begins. The low-water marks pass what has
#: settled, and no sweep would ever see a job that came below them.
ID_AGE = 90


class TooOld(Exception):
    """Jobs were not stored: their ids were made too long ago. Make them anew."""


_SUBMIT = Statement(f"""
    WITH new AS (
        SELECT * FROM {_NEW.sql}
        WHERE CAST(:oldest AS float8) > extract(epoch FROM statement_timestamp())::float8 - CAST(:age AS float8)
    ), request AS (
        INSERT INTO requests (id, tenant, content_type, size, body, blob, metadata, webhook, timeout, expires_in,
                              sticky_key, retry_of, input_url, shadow_of, etag, batch)
        SELECT id, tenant, content_type, size, body, blob, metadata, webhook, timeout, expires_in, sticky_key, retry_of,
               input_url, shadow_of, etag, CAST(:batch AS uuid)
        FROM new
    ), rows AS (
        INSERT INTO jobs (id, tenant, model, version, priority, expires_at)
        SELECT id, tenant, model, version, priority, now() + expires_in * interval '1 second' FROM new
    )
    SELECT now(), CAST(:oldest AS float8) > extract(epoch FROM statement_timestamp())::float8 - CAST(:age AS float8)
""")


def submit(connection: Connection, jobs: Sequence[NewJob], batch: UUID | None = None) -> datetime:
    """Store jobs and their shadows, all or none, in one statement, those of a `batch` file together; the database's
    time, from which they expire. Raises TooOld."""
    oldest = min(seconds_of(job.id) for job in jobs)
    given = {**_NEW.given(with_shadows(jobs)), "batch": batch, "oldest": oldest, "age": ID_AGE}
    [(at, fresh)] = _SUBMIT.rows(connection, given)
    if not fresh:
        raise TooOld(f"an id is over {ID_AGE} s old: did it wait for the blob store, or does a clock differ?")
    stored: datetime = at
    return stored


def with_shadows(jobs: Sequence[NewJob]) -> Sequence[NewJob]:
    """The jobs, each with its shadow behind it."""
    return [each for job in jobs for each in (job, job.shadow) if each]


class JobRow(NamedTuple):
    """A job as a caller sees it; `status` is QUEUED until predict has started, though a worker may hold it."""

    id: UUID
    tenant: int
    model: str
    version: str
    status: Status
    cancel_requested: bool
    attempt: int
    priority: Priority
    expires_at: datetime
    finished_at: datetime | None = None
    started_at: datetime | None = None
    metadata: bytes | None = None
    retry_of: UUID | None = None
    batch: UUID | None = None
    shadow_of: UUID | None = None
    output_type: str | None = None
    output_size: int | None = None
    output: bytes | None = None
    error: bytes | None = None
    predict_ms: float | None = None
    batch_size: int | None = None
    worker: UUID | None = None


#: A job's status as a caller sees it, where `c` is its claim: queued until predict has started.
SHOWN = "CASE WHEN j.status = 1 AND c.started_at IS NULL THEN 0 ELSE j.status END"
_JOB = f"""
    SELECT j.id, j.tenant, j.model, j.version, {SHOWN}, j.cancel_requested, j.attempt,
           j.priority, j.expires_at, j.finished_at,
           COALESCE(r.started_at, c.started_at), q.metadata, q.retry_of, q.batch, q.shadow_of,
           r.content_type, r.size, {{body}}, r.error, r.predict_ms, r.batch_size, COALESCE(r.worker, c.worker)
    FROM {{source}} JOIN requests q ON q.id = j.id {{span_q}}
         LEFT JOIN results r ON r.id = j.id {{span_r}} LEFT JOIN claims c ON j.status = 1 AND c.id = j.claim
"""
_READ = Statement(
    _JOB.format(
        source="unnest(CAST(:ids AS uuid[]), CAST(:tenants AS int[])) AS asked(id, tenant)"
        " JOIN jobs j ON j.id = asked.id AND j.tenant = asked.tenant"
        " AND j.id = ANY(:ids) AND j.id BETWEEN :low AND :high",
        body="r.body",
        span_q="AND q.id = ANY(:ids) AND q.id BETWEEN :low AND :high",
        span_r="AND r.id = ANY(:ids) AND r.id BETWEEN :low AND :high",
    )
)


#: By their numbers: the enums themselves take their time to say it.
_STATUS = {each.value: each for each in Status}
_PRIORITY = {each.value: each for each in Priority}


def _job_row(row: Sequence[Any]) -> JobRow:
    return JobRow._make((*row[:4], _STATUS[row[4]], *row[5:7], _PRIORITY[row[7]], *row[8:]))


def read(connection: Connection, asked: Sequence[tuple[UUID, int]]) -> dict[tuple[UUID, int], JobRow]:
    """The jobs of pairs (id, tenant); another tenant's job is not among them."""
    ids = [id for id, _ in asked]
    rows = _READ.rows(connection, {**span(ids), "tenants": array("int4", [tenant for _, tenant in asked])})
    jobs = [_job_row(row) for row in rows]
    return {(job.id, job.tenant): job for job in jobs}


class State(NamedTuple):
    """Where a job stands, as a caller sees it."""

    status: Status
    attempt: int


def states(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, State]:
    """Where jobs stand, of whatever tenant: to wake who waits, not to be shown."""
    rows = connection.execute(
        text(f"""
            SELECT j.id, {SHOWN}, j.attempt
            FROM jobs j LEFT JOIN claims c ON j.status = 1 AND c.id = j.claim
            WHERE j.id = ANY(:ids) AND j.id BETWEEN :low AND :high
        """),
        span(ids),
    )
    return {id: State(Status(status), attempt) for id, status, attempt in rows}


def read_again(connection: Connection, tenant: int, id: UUID) -> tuple[Status, NewJob] | None:
    """A job's status, and the job as it was submitted."""
    row = connection.execute(
        text("""
            SELECT j.status, j.id, j.tenant, j.model, j.version, j.priority, q.expires_in, q.content_type, q.size,
                   q.body, q.blob, q.metadata, q.webhook, q.timeout, q.sticky_key, q.input_url, q.etag
            FROM jobs j JOIN requests q ON q.id = j.id AND q.id = :id WHERE j.id = :id AND j.tenant = :tenant
        """),
        {"id": id, "tenant": tenant},
    ).one_or_none()
    if row is None:
        return None
    fields = {**row._mapping, "priority": Priority(row.priority)}
    return Status(fields.pop("status")), NewJob(**fields)


def delete(connection: Connection, tenant: int, id: UUID, *locations: str) -> bool:
    """Delete a job that has ended, with its payloads, the webhooks that are settled, its shadow, wherever that has come
    to, and its end as a key holds it for one of `locations`; False where the job has not ended, or there is none
    such."""
    gone = connection.execute(
        text("""
            WITH ended AS (
                DELETE FROM jobs WHERE id = :id AND tenant = :tenant AND status >= 2 RETURNING id
            ), shadow AS (
                DELETE FROM jobs WHERE id = :shadow AND EXISTS (SELECT FROM ended)
                       AND EXISTS (SELECT FROM requests q WHERE q.id = :shadow AND q.shadow_of = :id) RETURNING id
            ), gone AS (SELECT id FROM ended UNION ALL SELECT id FROM shadow),
            q AS (DELETE FROM requests WHERE id IN (:id, :shadow) AND id IN (SELECT id FROM gone)),
            r AS (DELETE FROM results WHERE id IN (:id, :shadow) AND id IN (SELECT id FROM gone)),
            d AS (DELETE FROM deliveries WHERE job = :id AND status <> 'pending' AND EXISTS (SELECT FROM ended))
            SELECT true FROM ended
        """),
        {"id": id, "shadow": shadow_id(id), "tenant": tenant},
    ).scalar()
    if gone:
        # Statements of their own: the first may have waited for who wrote these, and then does not see them.
        connection.execute(
            text("""
                DELETE FROM results WHERE id = :shadow AND NOT EXISTS (SELECT FROM jobs WHERE id = :shadow)
            """),
            {"shadow": shadow_id(id)},
        )
        connection.execute(
            text("""
                UPDATE idempotency SET ended = NULL
                WHERE tenant = :tenant AND location = ANY(:locations) AND ended IS NOT NULL
            """),
            {"tenant": tenant, "locations": list(locations)},
        )
    return bool(gone)


def shadow(connection: Connection, tenant: int, id: UUID) -> UUID | None:
    """The id of a job's shadow; None where it has none."""
    found: UUID | None = connection.execute(
        text("SELECT id FROM requests WHERE id = :shadow AND tenant = :tenant AND shadow_of = :id"),
        {"id": id, "shadow": shadow_id(id), "tenant": tenant},
    ).scalar()
    return found


class Payload(NamedTuple):
    """An input or output: `body`, the key of its blob, pinned by `etag` where it is an upload, or an input's `url`."""

    content_type: str
    size: int
    body: bytes | None
    blob: str | None
    url: str | None = None
    etag: str | None = None


def read_input(connection: Connection, tenant: int, id: UUID) -> Payload | None:
    row = connection.execute(
        text(
            "SELECT content_type, size, body, blob, input_url, etag FROM requests WHERE id = :id AND tenant = :tenant"
        ),
        {"id": id, "tenant": tenant},
    ).one_or_none()
    return None if row is None else Payload(*row)


def read_output(connection: Connection, tenant: int, id: UUID) -> tuple[Status, Payload | None] | None:
    """The job's status, and its output where it has one; None where there is no such job."""
    row = connection.execute(
        text("""
            SELECT j.status, r.content_type, r.size, r.body, r.blob
            FROM jobs j LEFT JOIN results r ON r.id = j.id AND r.id = :id
            WHERE j.id = :id AND j.tenant = :tenant
        """),
        {"id": id, "tenant": tenant},
    ).one_or_none()
    if row is None:
        return None
    return Status(row[0]), Payload(*row[1:]) if row[1] is not None else None


class Listing(NamedTuple):
    jobs: list[JobRow]
    next_before: UUID | None  # where the next page begins; None after the last


# In one statement: what comes or goes between two would put a job on two pages, or on none.
_LIST = text(
    "WITH scanned AS MATERIALIZED (SELECT * FROM jobs WHERE tenant = :tenant AND id < :before AND id >= :since"
    " ORDER BY id DESC LIMIT :budget), shown AS ("
    + _JOB.format(
        source="scanned j", body="CAST(NULL AS bytea)", span_q="AND q.id < :before", span_r="AND r.id < :before"
    )
    + " WHERE (CAST(:model AS text) IS NULL OR j.model = :model)"
    " AND (CAST(:version AS text) IS NULL OR j.version = :version)"
    " AND (CAST(:batch AS uuid) IS NULL OR q.batch = :batch)"
    f" AND (CAST(:status AS int) IS NULL OR {SHOWN} = :status)"
    " AND q.shadow_of IS NULL), looked AS ("
    "SELECT CASE WHEN count(*) = :budget THEN (SELECT id FROM scanned ORDER BY id LIMIT 1) END AS last FROM scanned)"
    " SELECT shown.*, looked.last FROM looked LEFT JOIN shown ON true ORDER BY shown.id DESC"
)
_OUTPUTS = text("SELECT id, body FROM results WHERE id = ANY(:ids) AND id BETWEEN :low AND :high")


@dataclass(frozen=True, slots=True)
class Search:
    """Jobs with `since <= id < before` that fit what is not None; `keep` filters by what SQL does not know."""

    before: UUID
    since: UUID
    limit: int = 20
    status: Status | None = None
    model: str | None = None
    version: str | None = None
    batch: UUID | None = None
    keep: Callable[[JobRow], bool] = lambda job: True


def list_jobs(connection: Connection, tenant: int, search: Search, budget: int = 2000) -> Listing:
    """What fits, newest first. At most `budget` rows are looked at (no index knows a status), so a page may be short
    and still have a next one. Outputs are read of what is found alone: those of all may be over 100 MB."""
    found: list[JobRow] = []
    window = {"tenant": tenant, "before": search.before, "since": search.since, "budget": budget}
    asked = {name: getattr(search, name) for name in ("model", "version", "batch", "status")} | window
    rows = connection.execute(_LIST, asked).all()
    last: UUID | None = rows[0][-1]
    for *row, _ in rows if rows[0][0] else ():  # there is always one, for its end
        job = _job_row(row)
        if search.keep(job):
            if len(found) == search.limit:
                return Listing(_with_outputs(connection, found), found[-1].id)
            found.append(job)
    return Listing(_with_outputs(connection, found), last)


def _with_outputs(connection: Connection, jobs: list[JobRow]) -> list[JobRow]:
    if not jobs:
        return jobs
    outputs = {id: body for id, body in connection.execute(_OUTPUTS, span([job.id for job in jobs]))}
    return [job._replace(output=outputs.get(job.id)) for job in jobs]


_WAITS = "(j.status = 0 OR NOT EXISTS (SELECT FROM claims c WHERE c.id = j.claim AND c.started_at IS NOT NULL))"
_CANCEL = text(f"""
    UPDATE jobs j SET
        status = CASE WHEN {_WAITS} THEN 4 ELSE j.status END,
        finished_at = CASE WHEN {_WAITS} THEN now() END,
        cancel_requested = true
    WHERE j.id = :id AND j.tenant = :tenant AND j.status IN (0, 1)
    RETURNING j.status, j.claim
""")


def cancel(connection: Connection, tenant: int, id: UUID) -> bool:
    """Cancel a waiting job at once; ask for it where predict has started. True where the job ended by this call.
    A job that is claimed ahead is dropped from its claim; where predict begins at that very moment, the fence of
    `record` refuses what comes of it."""
    moved = connection.execute(_CANCEL, {"id": id, "tenant": tenant}).one_or_none()
    if moved is None or moved.status != Status.CANCELED:
        return False
    if moved.claim is not None:
        # A statement of its own: the first may have waited for the claim, and then does not see its row.
        connection.execute(
            text("UPDATE claims SET dropped = array_append(dropped, :id) WHERE id = :claim AND started_at IS NULL"),
            {"id": id, "claim": moved.claim},
        )
    return True
