"""How a job looks to its caller: the JSON of the API and of webhooks."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from tundish.ids import milliseconds_of, to_text
from tundish.job import Priority, Status
from tundish.media import JSON
from tundish.store import JobRow

#: A webhook carries an output up to this size; a larger one is fetched by its URL.
WEBHOOK_OUTPUT = 16384
#: Bytes of a webhook's body (Standard Webhooks asks for small ones: under 20 kB).
WEBHOOK_BODY = 20_000

_STATUS = {each: each.name.lower() for each in Status}
_PRIORITY = {each: each.name.lower() for each in Priority}
_NULL = msgspec.Raw(b"null")
_EMPTY = msgspec.Raw(b"{}")
#: How a time ends, by its milliseconds.
_REST = [f".{rest:03}Z" for rest in range(1000)]


class Timings(msgspec.Struct):
    """Milliseconds, 0 where the job has not come that far; `batch_size` counts the jobs it was predicted with."""

    queued_ms: float
    predict_ms: float
    total_ms: float
    batch_size: int


class Urls(msgspec.Struct):
    self: str
    cancel: str
    result: str
    events: str


class JobView(msgspec.Struct):
    """A job, field by field in the order that callers read it."""

    id: str
    model: str
    version: str
    status: str
    cancel_requested: bool
    output: msgspec.Raw
    output_type: str | None
    output_size: int | None
    error: msgspec.Raw
    progress: float | None
    attempt: int
    priority: str
    metadata: msgspec.Raw
    created_at: str
    started_at: str | None
    finished_at: str | None
    expires_at: str
    retry_of: str | None
    batch: str | None
    shadow_of: str | None
    timings: Timings
    worker: str | None
    urls: Urls


encode = msgspec.json.Encoder().encode


def rfc3339(at: datetime) -> str:
    """To the millisecond, in UTC."""
    return _rfc3339(_microseconds(at) // 1000)


def _microseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def _rfc3339(milliseconds: int) -> str:
    return _second(milliseconds // 1000) + _REST[milliseconds % 1000]


@lru_cache(maxsize=1024)
def _second(at: int) -> str:
    """Most of the times of an hour's answers are of few seconds: writing each out was 5 % of a submit."""
    return datetime.fromtimestamp(at, UTC).isoformat()[:-6]


def job_url(id: str, public_url: str) -> str:
    """Where a job is, as its `urls.self` and the Location of its submit say."""
    return f"{public_url}/v1/jobs/{id}"


def job_view(
    job: JobRow, public_url: str = "", output_max: int | None = None, progress: float | None = None
) -> JobView:
    """`public_url` goes before each link; an output over `output_max` bytes is left out. `progress` is not of the
    row: it is the latest that a running job has told."""
    id = to_text("job", job.id)
    created = milliseconds_of(job.id)
    started = _microseconds(job.started_at) if job.started_at else None
    finished = _microseconds(job.finished_at) if job.finished_at else None
    here = job_url(id, public_url)
    return JobView(  # in its order: their names take time
        id,
        job.model,
        job.version,
        _STATUS[job.status],
        job.cancel_requested,
        _output(job, output_max),
        job.output_type,
        job.output_size,
        msgspec.Raw(job.error) if job.error is not None else _NULL,
        progress,
        job.attempt,
        _PRIORITY[job.priority],
        msgspec.Raw(job.metadata) if job.metadata is not None else _EMPTY,
        _rfc3339(created),
        None if started is None else _rfc3339(started // 1000),
        None if finished is None else _rfc3339(finished // 1000),
        rfc3339(job.expires_at),
        shown_id("job", job.retry_of),
        shown_id("bat", job.batch),
        shown_id("job", job.shadow_of),
        Timings(
            queued_ms=_ms(created, started),
            predict_ms=round(job.predict_ms or 0.0, 3),
            total_ms=_ms(created, finished),
            batch_size=job.batch_size or 0,
        ),
        None if job.worker is None else _worker(job.worker),
        Urls(here, f"{here}/cancel", f"{here}/result", f"{here}/events"),
    )


def job_json(job: JobRow, public_url: str = "", progress: float | None = None) -> bytes:
    """A job as the API answers it."""
    return encode(job_view(job, public_url, progress=progress))


def event_of(job: JobRow) -> str:
    """The event that tells of a job's status."""
    return "job.started" if job.status is Status.RUNNING else f"job.{_STATUS[job.status]}"


def webhook_body(job: JobRow, public_url: str) -> bytes:
    """A job's start or end as Standard Webhooks carries it, under 20 kB: where it would be more, it goes without the
    output, and a long error is cut."""
    at = job.finished_at or job.started_at or datetime.now(UTC)
    body = event_body(event_of(job), at, job_view(job, public_url, WEBHOOK_OUTPUT))
    if len(body) > WEBHOOK_BODY:
        short = job._replace(output=None, error=job.error and _short(job.error))
        body = event_body(event_of(job), at, job_view(short, public_url))
    return body


def event_body(event: str, at: datetime, data: Any) -> bytes:
    """`{type, timestamp, data}`."""
    return encode({"type": event, "timestamp": rfc3339(at), "data": data})


def _short(error: bytes) -> bytes:
    """A job's error, its message cut and its details left out where it is long."""
    if len(error) <= 2048:
        return error
    shown = msgspec.json.decode(error)
    return encode({**shown, "message": shown["message"][:256] + " …", "details": {}})


def _output(job: JobRow, most: int | None) -> msgspec.Raw:
    """JSON as it is, a text as a string of JSON; null for all else."""
    if job.output is None or job.output_type is None or (most is not None and len(job.output) > most):
        return _NULL
    if job.output_type == JSON:
        return msgspec.Raw(job.output)
    if job.output_type.startswith("text/"):
        try:
            return msgspec.Raw(encode(job.output.decode()))
        except UnicodeDecodeError:
            return _NULL
    return _NULL


def shown_id(prefix: str, id: UUID | None) -> str | None:
    """An id as a caller reads it; None where there is none."""
    return None if id is None else to_text(prefix, id)


@lru_cache(maxsize=1024)
def _worker(id: UUID) -> str:
    """They are few."""
    return to_text("wrk", id)


def _ms(since: int, until: int | None) -> float:
    """Of milliseconds and microseconds since 1970."""
    # The id's time is the API's clock, the other the database's: a skew must not show as a negative time.
    return 0.0 if until is None else max(0, until - since * 1000) / 1000
