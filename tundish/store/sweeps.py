"""What the chores do: expire, find lost messages, advance the low-water marks, let go of what is past retention.

No index knows a status. For each model version, lane and priority a mark holds an id under which no job is queued or
running; a sweep reads from there on, by primary key, and one of all queues from the lowest of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.queue import Queue
from tundish.store.claims import Unsent, queue_of
from tundish.store.connect import span
from tundish.store.pauses import paused


def lock(connection: Connection, chore: str) -> bool:
    """Held by one process a chore until its transaction ends; False where another holds it."""
    held: bool = connection.execute(
        text("SELECT pg_try_advisory_xact_lock(hashtext('tundish:' || :chore))"), {"chore": chore}
    ).scalar_one()
    return held


@contextmanager
def locked(connection: Connection, chore: str) -> Iterator[bool]:
    """As `lock`, on an AUTOCOMMIT connection, until the block ends."""
    given = {"chore": chore}
    held = connection.execute(text("SELECT pg_try_advisory_lock(hashtext('tundish:' || :chore))"), given).scalar_one()
    try:
        yield held
    finally:
        if held:
            connection.execute(text("SELECT pg_advisory_unlock(hashtext('tundish:' || :chore))"), given)


def clock(connection: Connection) -> datetime:
    """The database's time: that of a host may be wrong."""
    now: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return now


def tenants(connection: Connection) -> list[int]:
    return list(connection.execute(text("SELECT id FROM tenants ORDER BY id")).scalars())


def low_water(connection: Connection) -> UUID:
    """No job below this id is queued or running."""
    low: UUID | None = connection.execute(text("SELECT low FROM marks ORDER BY low LIMIT 1")).scalar()
    return low or UUID(int=0)


def _low_of(connection: Connection, queue: Queue) -> UUID:
    """No job of a queue below this id is queued or running."""
    low: UUID | None = connection.execute(
        text("""
            SELECT low FROM marks
            WHERE model = :model AND version = :version AND lane = :lane AND priority = :priority
        """),
        {"model": queue.model, "version": queue.version, "lane": queue.lane, "priority": queue.priority},
    ).scalar()
    return low or low_water(connection)


def expire(connection: Connection, error: bytes, *, limit: int = 1000) -> list[tuple[UUID, int]]:
    """Fail what waited too long for its start with `error` (JSON), a page at a time. The (id, tenant) of each."""
    rows = connection.execute(
        text("""
            WITH late AS (
                SELECT j.id FROM jobs j LEFT JOIN claims c ON c.id = j.claim AND j.status = 1
                WHERE j.id >= :low AND j.expires_at <= now()
                      AND (j.status = 0 OR (j.status = 1 AND c.id IS NOT NULL AND c.started_at IS NULL))
                ORDER BY j.id LIMIT :limit FOR UPDATE OF j SKIP LOCKED
            ), done AS (
                UPDATE jobs j SET status = 3, finished_at = now() FROM late WHERE j.id = late.id
                RETURNING j.id, j.tenant, j.attempt, j.claim
            ), told AS (
                UPDATE claims c SET dropped = c.dropped || d.ids
                FROM (SELECT claim, array_agg(id) AS ids FROM done GROUP BY claim) d
                WHERE c.id = d.claim AND c.started_at IS NULL
            ), kept AS (
                INSERT INTO results (id, tenant, attempt, error)
                SELECT id, tenant, attempt, :error FROM done
            )
            SELECT id, tenant FROM done
        """),
        {"low": low_water(connection), "error": error, "limit": limit},
    )
    return [(row.id, row.tenant) for row in rows]


def queues(connection: Connection) -> list[Queue]:
    """The queues in which a job waits, less those that are paused: their workers let go of what comes."""
    rows = connection.execute(
        text("""
            SELECT q.*, COALESCE(v.pool, '') AS pool FROM (
                SELECT DISTINCT model, version, lane, priority FROM jobs WHERE id >= :low AND status = 0
            ) q LEFT JOIN versions v USING (model, version)
        """),
        {"low": low_water(connection)},
    )
    stopped = paused(connection)
    return [queue_of(row) for row in rows if not stopped.holds(row.pool, row.model, row.version)]


def unsent(
    connection: Connection, queue: Queue, *, before: float, older_than: float, limit: int = 10_000
) -> list[Unsent]:
    """Queued jobs whose message was sent before the moment `before` (seconds since 1970: that of the oldest message
    still in Redis) and over `older_than` seconds ago: it is lost. Their time of sending becomes now."""
    rows = connection.execute(
        text("""
            WITH lost AS (
                SELECT id FROM jobs
                WHERE id >= :low AND model = :model AND version = :version AND lane = :lane AND priority = :priority
                      AND status = 0 AND expires_at > now()
                      AND sent_at < LEAST(to_timestamp(:before), now() - :older * interval '1 second')
                ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
            )
            UPDATE jobs j SET sent_at = now() FROM lost WHERE j.id = lost.id AND j.id >= :low
            RETURNING j.id, j.model, j.version, j.lane, j.priority, j.deaths, j.alone, j.sent_at
        """),
        {
            "low": _low_of(connection, queue),
            "model": queue.model,
            "version": queue.version,
            "lane": queue.lane,
            "priority": queue.priority,
            "before": min(before, 32503680000.0),
            "older": older_than,
            "limit": limit,
        },
    )
    return list(map(Unsent.of, rows))


def advance_marks(connection: Connection, settled_before: UUID) -> None:
    """Raise each queue's mark to its smallest id that is queued or running, at most to `settled_before`, an id old
    enough that no submit under it is still on its way."""
    connection.execute(
        text("""
            WITH open AS (
                SELECT model, version, lane, priority, min(id::text)::uuid AS low FROM jobs
                WHERE id >= :low AND status < 2 GROUP BY 1, 2, 3, 4
            ), known AS (
                SELECT model, version, lane, priority FROM marks
                UNION SELECT model, version, lane, priority FROM open
            )
            INSERT INTO marks (model, version, lane, priority, low)
            SELECT k.*, LEAST(COALESCE(o.low, :settled), :settled)
            FROM known k LEFT JOIN open o USING (model, version, lane, priority)
            ON CONFLICT (model, version, lane, priority) DO UPDATE SET low = EXCLUDED.low
        """),
        {"low": low_water(connection), "settled": settled_before},
    )


def past_retention(connection: Connection, below: UUID, *, limit: int = 1000) -> list[tuple[UUID, int]]:
    """A page of ended jobs with ids under `below`, the oldest first: (id, tenant)."""
    rows = connection.execute(
        text("SELECT id, tenant FROM jobs WHERE id < :below AND status >= 2 ORDER BY id LIMIT :limit"),
        {"below": below, "limit": limit},
    )
    return [(row.id, row.tenant) for row in rows]


def delete_ended(connection: Connection, ids: Sequence[UUID]) -> None:
    """Delete jobs that have ended, with all that was stored of them."""
    connection.execute(
        text("""
            WITH old AS (
                DELETE FROM jobs WHERE id = ANY(:ids) AND id BETWEEN :low AND :high AND status >= 2 RETURNING id
            ), q AS (
                DELETE FROM requests WHERE id IN (SELECT id FROM old) AND id BETWEEN :low AND :high
            )
            DELETE FROM results WHERE id IN (SELECT id FROM old) AND id BETWEEN :low AND :high
        """),
        span(ids),
    )
