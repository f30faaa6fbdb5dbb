"""The answers that idempotency keys hold, each written in the transaction of what it tells of."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.store import batches, jobs
from tundish.store.batches import NewBatch
from tundish.store.jobs import NewJob

#: Seconds to wait for the request that holds the same key.
IN_FLIGHT = 1


class Scope(NamedTuple):
    """Within which a key is unique."""

    tenant: int
    method: str
    path: str
    key: str


class Answer(NamedTuple):
    """What a repeat gets, provided that its `fingerprint` (SHA-256 of the request) is the first one's."""

    fingerprint: bytes
    status: int
    location: str | None
    body: bytes


_WHERE = "WHERE tenant = :tenant AND method = :method AND path = :path AND key = :key"


def answer_of(connection: Connection, scope: Scope, retention: float) -> Answer | None:
    """What is held of a job's end is told for `retention` seconds, as the job; an answer may be kept for longer."""
    row = connection.execute(
        text(f"""
            SELECT fingerprint, status, location, body,
                   CASE WHEN created_at > now() - :retention * interval '1 second' THEN ended END
            FROM idempotency {_WHERE}
        """),
        {**scope._asdict(), "retention": retention},
    ).one_or_none()
    if row is None:
        return None
    first, ended = Answer(*row[:-1]), row[-1]
    return first if ended is None else first._replace(status=200, body=ended)


def submit_once(
    connection: Connection, scope: Scope, new: Sequence[NewJob], answer: Callable[[datetime], Answer]
) -> bool:
    """Store jobs and the answer to their request, all or none; False where the key is taken, and nothing is stored.
    Raises a StoreError with `lock_timed_out` where another request held the key for IN_FLIGHT seconds."""
    first = _answer_once(connection, scope, answer)
    if first and new:
        jobs.submit(connection, new)
    return first


def new_batch_once(connection: Connection, scope: Scope, new: NewBatch, answer: Callable[[datetime], Answer]) -> bool:
    """The same for a batch."""
    first = _answer_once(connection, scope, answer)
    if first:
        batches.new_batch(connection, new)
    return first


def _answer_once(connection: Connection, scope: Scope, answer: Callable[[datetime], Answer]) -> bool:
    begun = text("SELECT now(), set_config('lock_timeout', :wait, true)")
    at = connection.execute(begun, {"wait": f"{IN_FLIGHT}s"}).one()[0]
    first = connection.execute(
        text("""
            INSERT INTO idempotency (tenant, method, path, key, fingerprint, status, location, body)
            VALUES (:tenant, :method, :path, :key, :fingerprint, :status, :location, :body)
            ON CONFLICT DO NOTHING
        """),
        {**scope._asdict(), **answer(at)._asdict()},
    )
    return first.rowcount == 1


def amend_answer(connection: Connection, scope: Scope, job: UUID, ended: bytes) -> None:
    """The request waited, and was answered by 200 and the job as it ended, which goes with the job: where that is gone
    already nothing is written, and who deletes it waits until this is."""
    connection.execute(
        text(f"""
            WITH there AS MATERIALIZED (SELECT FROM jobs WHERE id = :job FOR KEY SHARE)
            UPDATE idempotency SET ended = :ended {_WHERE} AND EXISTS (SELECT FROM there)
        """),
        {**scope._asdict(), "job": job, "ended": ended},
    )


def replace_answer(connection: Connection, scope: Scope, body: bytes) -> None:
    """The request waited in vain, and was answered by 202 and the job as it was by then."""
    connection.execute(text(f"UPDATE idempotency SET body = :body {_WHERE}"), {**scope._asdict(), "body": body})


def forget_answers(connection: Connection, older_than: float, *, limit: int = 1000) -> int:
    """Delete a page of answers that are over `older_than` seconds old; how many."""
    rows = connection.execute(
        text("""
            DELETE FROM idempotency WHERE ctid = ANY(ARRAY(
                SELECT ctid FROM idempotency WHERE created_at < now() - :age * interval '1 second'
                ORDER BY created_at LIMIT :limit)) RETURNING true
        """),
        {"age": older_than, "limit": limit},
    )
    return len(rows.all())
