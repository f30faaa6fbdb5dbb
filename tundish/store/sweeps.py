"""What the chores do: survey, expire, find lost messages, let go of what is past retention.

No index knows a status. For each model version, lane and priority a mark holds an id under which no job is queued or
running; a sweep reads from there on, by primary key, and one of all queues from the lowest of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from tundish.queue import Queue
from tundish.store.claims import Unsent, queue_of
from tundish.store.connect import span
from tundish.store.pauses import paused

#: Ids are time: those of so long are looked at in one statement, so that none runs into its time-out.
STEP = timedelta(minutes=10)
#: No id is under the one, nor over the other.
FIRST, LAST = UUID(int=0), UUID(int=2**128 - 1)


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
    return low or FIRST


class Surveyed(NamedTuple):
    """What has not ended of one queue: an id under which there is none, when the first message of those that are queued
    was sent at the earliest, and when the first expires at the earliest; None where there is none."""

    low: UUID
    sent_at: datetime | None
    expires_at: datetime | None

    def beside(self, other: "Surveyed") -> "Surveyed":
        """Of both together."""
        return Surveyed(
            min(self.low, other.low),
            min(filter(None, (self.sent_at, other.sent_at)), default=None),
            min(filter(None, (self.expires_at, other.expires_at)), default=None),
        )


def survey(
    connection: Connection, settled_before: UUID, *, since: UUID = FIRST, step: timedelta = STEP
) -> dict[Queue, Surveyed]:
    """Look at the jobs that have not ended, from the id `since` on, those of a `step` in a statement; of older ones
    what the marks say stands. Each queue's mark is raised to its smallest id, at most to `settled_before`, an id old
    enough that no submit under it is still on its way. Gives the queues that are not paused: of those the workers let
    go of what comes."""
    found = _surveyed(connection.execute(_MARKED, {"since": since}))
    low = max(since, low_water(connection))
    while first := connection.execute(_FROM, {"low": low}).scalar():
        after = UUID(int=first.int + (int(step.total_seconds() * 1000) << 80))
        low = after if after < settled_before else LAST
        for queue, seen in _surveyed(connection.execute(_OPEN, {"low": first, "high": low})).items():
            found[queue] = found[queue].beside(seen) if queue in found else seen
    connection.execute(text("UPDATE marks SET low = :low, sent_at = NULL, expires_at = NULL"), {"low": settled_before})
    if found:
        marks = [
            {**_named(queue), **seen._asdict(), "low": min(seen.low, settled_before)} for queue, seen in found.items()
        ]
        connection.execute(_MARK, marks)
    stopped = paused(connection)
    pools = {(row.model, row.version): row.pool for row in connection.execute(_POOLS)}

    def runs(queue: Queue) -> bool:
        target = queue.model, queue.version
        return not stopped.holds(pools.get(target, ""), *target)

    return {queue: seen for queue, seen in found.items() if runs(queue)}


def _surveyed(rows: Iterable[Row[Any]]) -> dict[Queue, Surveyed]:
    return {queue_of(row): Surveyed(row.low, row.sent_at, row.expires_at) for row in rows}


_FROM = text("SELECT id FROM jobs WHERE id >= :low ORDER BY id LIMIT 1")
#: What may expire, if not now: a job that runs may come back to its queue.
_MAY_EXPIRE = "(status = 0 OR expires_at > now())"
_OPEN = text(f"""
    SELECT model, version, lane, priority, min(id::text COLLATE "C")::uuid AS low,
           min(sent_at) FILTER (WHERE status = 0) AS sent_at, min(expires_at) FILTER (WHERE {_MAY_EXPIRE}) AS expires_at
    FROM jobs WHERE id >= :low AND id < :high AND status < 2 GROUP BY 1, 2, 3, 4
""")
_MARKED = text("SELECT model, version, lane, priority, low, sent_at, expires_at FROM marks WHERE low < :since")
_MARK = text("""
    INSERT INTO marks (model, version, lane, priority, low, sent_at, expires_at)
    VALUES (:model, :version, :lane, :priority, :low, :sent_at, :expires_at)
    ON CONFLICT (model, version, lane, priority)
    DO UPDATE SET low = EXCLUDED.low, sent_at = EXCLUDED.sent_at, expires_at = EXCLUDED.expires_at
""")
_POOLS = text("SELECT model, version, pool FROM versions")


def _named(queue: Queue) -> dict[str, object]:
    """Its names, as the parameters of a statement."""
    return {"model": queue.model, "version": queue.version, "lane": queue.lane, "priority": queue.priority}


def expire(connection: Connection, error: bytes, *, limit: int = 1000) -> list[tuple[UUID, int]]:
    """Fail what waited too long for its start with `error` (JSON), a page at a time. The (id, tenant) of each. Nothing
    is looked for before a mark says that something expires; then the marks say when the next does."""
    low = connection.execute(text("SELECT low FROM marks WHERE expires_at <= now() ORDER BY low LIMIT 1")).scalar()
    if low is None:
        return []
    late = connection.execute(_LATE, {"low": low, "limit": limit}).scalars().all()
    expired = connection.execute(_EXPIRE, {**span(late), "error": error}).all() if late else []
    if len(late) < limit:
        connection.execute(_NEXT, {"low": low})
    return [(row.id, row.tenant) for row in expired]


_LATE = text("""
    SELECT j.id FROM jobs j LEFT JOIN claims c ON c.id = j.claim AND j.status = 1
    WHERE j.id >= :low AND j.expires_at <= now()
          AND (j.status = 0 OR (j.status = 1 AND c.id IS NOT NULL AND c.started_at IS NULL))
    ORDER BY j.id LIMIT :limit FOR UPDATE OF j SKIP LOCKED
""")
_EXPIRE = text("""
    WITH done AS (
        UPDATE jobs SET status = 3, finished_at = now() WHERE id = ANY(:ids) AND id BETWEEN :low AND :high
        RETURNING id, tenant, attempt, claim
    ), told AS (
        UPDATE claims c SET dropped = c.dropped || d.ids
        FROM (SELECT claim, array_agg(id) AS ids FROM done GROUP BY claim) d
        WHERE c.id = d.claim AND c.started_at IS NULL
    ), kept AS (
        INSERT INTO results (id, tenant, attempt, error)
        SELECT id, tenant, attempt, :error FROM done
    )
    SELECT id, tenant FROM done
""")


#: One look at what is open for all queues that are due: a look for each ran into the time-out where many were.
_NEXT = text(f"""
    WITH open AS (
        SELECT model, version, lane, priority, min(expires_at) AS expires_at FROM jobs
        WHERE id >= :low AND status < 2 AND {_MAY_EXPIRE} GROUP BY 1, 2, 3, 4
    )
    UPDATE marks m SET expires_at = next.expires_at
    FROM marks due LEFT JOIN open next USING (model, version, lane, priority)
    WHERE due.expires_at <= now()
          AND (m.model, m.version, m.lane, m.priority) = (due.model, due.version, due.lane, due.priority)
""")


def unsent(
    connection: Connection,
    queue: Queue,
    *,
    low: UUID,
    high: UUID = LAST,
    before: datetime,
    limit: int = 10_000,
) -> list[Unsent]:
    """Queued jobs with ids from `low` up to `high` whose message was sent `before` that moment: it is lost. Their time
    of sending becomes now."""
    given = {**_named(queue), "low": low, "high": high, "before": before, "limit": limit}
    lost = connection.execute(_LOST, given).scalars().all()
    return list(map(Unsent.of, connection.execute(_SEND_AGAIN, span(lost)))) if lost else []


_LOST = text("""
    SELECT id FROM jobs
    WHERE id BETWEEN :low AND :high
          AND model = :model AND version = :version AND lane = :lane AND priority = :priority
          AND status = 0 AND expires_at > now() AND sent_at < :before
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
""")
_SEND_AGAIN = text("""
    UPDATE jobs SET sent_at = now() WHERE id = ANY(:ids) AND id BETWEEN :low AND :high
    RETURNING id, model, version, lane, priority, deaths, alone, sent_at, false AS in_place
""")


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
