"""How much there is to do: what waits, what runs, and how fast more arrives. Nothing is written for it."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from tundish.ids import floor_uuid, seconds_of
from tundish.queue import Queue
from tundish.scaling import RATE
from tundish.store.claims import queue_of
from tundish.store.deliveries import FRESH, RETRIED
from tundish.store.sweeps import low_water


class Backlog(NamedTuple):
    """What waits in one queue, as Postgres knows it."""

    queue: Queue
    queued: int
    oldest_s: float


def backlog(connection: Connection) -> list[Backlog]:
    """How much waits, by queue, and how long the oldest has."""
    rows = connection.execute(
        text("""
            SELECT model, version, lane, priority, count(*) AS queued, min(id::text COLLATE "C")::uuid AS oldest,
                   CAST(extract(epoch FROM now()) AS float8) AS now
            FROM jobs WHERE id >= :low AND status = 0 GROUP BY 1, 2, 3, 4
        """),
        {"low": low_water(connection)},
    )
    # An id's time is the API's clock: a skew must not show as a negative age.
    return [Backlog(queue_of(row), row.queued, max(0.0, row.now - seconds_of(row.oldest))) for row in rows]


def running(connection: Connection) -> dict[tuple[str, str], int]:
    """How many jobs workers hold, by (model, version): those that run, and those that were claimed ahead. A claim's
    jobs are of one version, so that one of them is looked up, each by primary key: LIMIT keeps the planner to that."""
    rows = connection.execute(
        text("""
            SELECT j.model, j.version, sum(cardinality(c.jobs))
            FROM claims c CROSS JOIN LATERAL (SELECT model, version FROM jobs WHERE id = c.jobs[1] LIMIT 1) j
            GROUP BY j.model, j.version
        """)
    )
    return {(model, version): count for model, version, count in rows}


class Undelivered(NamedTuple):
    """The `number` of webhooks in a `state`: `fresh`, waiting for their first try; `retried`, for another; or `dead`
    letters. `oldest_s` is the age of the oldest in seconds, 0 where there is none."""

    state: str
    number: int
    oldest_s: float


_UNDELIVERED = " UNION ALL ".join(
    f"""SELECT '{state}' AS state, count(*) AS waiting, min(id::text COLLATE "C")::uuid AS oldest,
               CAST(extract(epoch FROM now()) AS float8) AS now
        FROM (SELECT id FROM deliveries WHERE {which} LIMIT :most) AS found"""
    for state, which in (("fresh", FRESH), ("retried", RETRIED), ("dead", "status = 'dead'"))
)


def undelivered(connection: Connection, *, most: int = 100_000) -> list[Undelivered]:
    """How many webhooks were not delivered, up to `most` of each state: each has an index of its own, which holds no
    others."""
    rows = connection.execute(text(_UNDELIVERED), {"most": most})
    return [
        Undelivered(row.state, row.waiting, max(0.0, row.now - seconds_of(row.oldest)) if row.oldest else 0.0)
        for row in rows
    ]


class Arrivals(NamedTuple):
    """The jobs of one version that were submitted lately; `per_s` over the last RATE seconds."""

    model: str
    version: str
    per_s: float


def arrivals(connection: Connection, *, within: float, budget: int = 50_000) -> list[Arrivals]:
    """Each version for which a job was submitted within so many seconds. An id is its time, so that this reads the
    newest ids by primary key; over `budget` of them, only as far back as those reach, but a second at least: an id's
    time is the API's clock, and that of another process may be ahead."""
    now = datetime.now(UTC)
    rows = connection.execute(
        text("""
            WITH newest AS MATERIALIZED (
                SELECT id, model, version FROM jobs WHERE id >= :since ORDER BY id DESC LIMIT :budget
            )
            SELECT model, version, count(*) FILTER (WHERE id >= :recent) AS recent,
                   (SELECT count(*) FROM newest) AS looked_at, (SELECT id FROM newest ORDER BY id LIMIT 1) AS first
            FROM newest GROUP BY model, version
        """),
        {
            "since": floor_uuid(now - timedelta(seconds=within)),
            "recent": floor_uuid(now - timedelta(seconds=RATE)),
            "budget": budget,
        },
    ).all()
    reached = now.timestamp() - seconds_of(rows[0].first) if rows and rows[0].looked_at == budget else RATE
    return [Arrivals(row.model, row.version, row.recent / max(1.0, min(RATE, reached))) for row in rows]
