"""What the courier does with the outbox: take what is due, lane by lane, settle it, and give up what waited too long.

A lane's fresh deliveries and those to be tried again are taken apart from each other, each through an index of its own,
and from each lane as many as it has room for: a lane that is full, or whose receiver fails, is stepped over, however
much waits in it. Quick lanes are asked one by one; the others are walked through.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.ids import floor_uuid
from tundish.store.arrays import Rows, array
from tundish.store.connect import span
from tundish.store.deliveries import FRESH, LIFE, RETRIED
from tundish.store.endpoints import signing
from tundish.store.sweeps import clock


class Due(NamedTuple):
    """A webhook to send now, signed with each of `secrets`. It was tried `tries` times in its present schedule, which
    is told from others by its end, `give_up_at`: a replay begins a new one. It is not `wanted` where its endpoint is
    disabled or gone."""

    id: UUID
    lane: UUID
    endpoint: UUID | None
    url: str
    body: bytes
    tries: int
    give_up_at: str
    secrets: list[str]
    wanted: bool


class Taken(NamedTuple):
    """What was taken, and behind which lane the walk goes on; None where it came to the last one."""

    due: list[Due]
    stopped: UUID | None = None


#: Lanes that one statement walks through at most: as many may wait for their next try as there are receivers.
LANES = 2048
#: What lies an hour ahead of now is empty: the partitions of the days to come are left out.
_TOP = "CAST(rpad(lpad(to_hex(CAST(extract(epoch FROM now()) * 1000 AS bigint) + 3600000), 12, '0'), 32, '0') AS uuid)"

_TAKE = """
    WITH RECURSIVE lanes AS (
        (SELECT lane FROM deliveries WHERE {waits} AND id < {top} AND lane > :after ORDER BY lane LIMIT 1)
        UNION ALL
        SELECT (SELECT d.lane FROM deliveries d WHERE {waits} AND d.id < {top} AND d.lane > lanes.lane
                ORDER BY d.lane LIMIT 1)
        FROM lanes WHERE lanes.lane IS NOT NULL
    ), walked AS (
        SELECT lane FROM lanes WHERE lane IS NOT NULL LIMIT :lanes
    ), picked AS MATERIALIZED (
        (SELECT due.id, CAST(NULL AS uuid) AS lane
         FROM unnest(CAST(:quick AS uuid[]), CAST(:quick_rooms AS int[])) AS quick(lane, room)
         CROSS JOIN LATERAL (
            SELECT d.id FROM deliveries d
            WHERE {waits} AND d.id < {top} AND d.lane = quick.lane AND d.next_at <= now()
            ORDER BY {order} LIMIT quick.room FOR UPDATE SKIP LOCKED
         ) due LIMIT :quick_limit)
        UNION ALL
        (SELECT due.id, walked.lane FROM walked
         LEFT JOIN unnest(CAST(:others AS uuid[]), CAST(:other_rooms AS int[])) AS known(lane, room)
                ON known.lane = walked.lane
         CROSS JOIN LATERAL (
            SELECT d.id FROM deliveries d
            WHERE {waits} AND d.id < {top} AND d.lane = walked.lane AND d.next_at <= now()
            ORDER BY {order} LIMIT COALESCE(known.room, :unknown) FOR UPDATE SKIP LOCKED
         ) due LIMIT :others_limit)
    ), walk AS (
        SELECT CASE WHEN (SELECT count(lane) FROM picked) < :others_limit
                    THEN (SELECT lane FROM walked OFFSET :lanes - 1)
                    ELSE (SELECT lane FROM picked WHERE lane IS NOT NULL ORDER BY lane DESC LIMIT 1)
               END AS stopped
    )
    SELECT picked.id, walk.stopped FROM walk LEFT JOIN picked ON true
"""
_TAKE_FRESH = text(_TAKE.format(waits=FRESH, top=_TOP, order="d.id"))
_TAKE_RETRIED = text(_TAKE.format(waits=RETRIED, top=_TOP, order="d.next_at"))
_LEASE = text("""
    WITH taken AS (
        UPDATE deliveries d SET next_at = now() + :lease * interval '1 second'
        WHERE d.id = ANY(:ids) AND d.id BETWEEN :low AND :high
        RETURNING d.id, d.tenant, d.lane, d.endpoint, d.url, d.body, d.tries, d.give_up_at
    )
    SELECT d.id, d.lane, d.endpoint, COALESCE(e.url, d.url), d.body, d.tries, d.give_up_at::text,
           COALESCE(e.secret, t.webhook_secret), CASE WHEN e.id IS NULL THEN t.retired ELSE e.retired END,
           d.endpoint IS NULL OR COALESCE(e.enabled, false)
    FROM taken d LEFT JOIN tenants t ON t.id = d.tenant LEFT JOIN endpoints e ON e.id = d.endpoint
    ORDER BY d.lane, d.id
""")


def take(
    connection: Connection,
    *,
    retried: bool,
    quick: Mapping[UUID, int],
    quick_limit: int,
    others: Mapping[UUID, int],
    unknown: int,
    others_limit: int,
    after: UUID,
    lease: float,
) -> Taken:
    """Take webhooks, fresh or `retried` ones, whose time has come: up to `quick_limit` from the `quick` lanes, from the
    first on; besides up to `others_limit` from all other lanes, which have their turn in order, from the one after
    `after` on, and of which LANES are walked through. Each lane gives as many as `quick` or `others` says, else
    `unknown`. Whoever does not settle them within `lease` seconds has died: they are due again."""
    others = {**others, **dict.fromkeys(quick, 0)}
    picked = connection.execute(
        _TAKE_RETRIED if retried else _TAKE_FRESH,
        {
            "quick": array("uuid", list(quick)),
            "quick_rooms": array("int4", list(quick.values())),
            "quick_limit": quick_limit,
            "others": array("uuid", list(others)),
            "other_rooms": array("int4", list(others.values())),
            "unknown": unknown,
            "others_limit": others_limit,
            "after": after,
            "lanes": LANES,
        },
    ).all()
    ids, stopped = [id for id, _ in picked if id is not None], picked[0][1]
    leased = connection.execute(_LEASE, {**span(ids), "lease": lease}) if ids else ()
    return Taken([Due._make([*row[:7], signing(row[7], row[8]), row[9]]) for row in leased], stopped)


class Settled(NamedTuple):
    """What came of a try, and what becomes of the webhook: `delivered`, `dead`, or `pending` and due `again_in`
    seconds. `attempt` is JSON: {"at", "status_code", "error", "ms"}. `tries` and `give_up_at` are those of its Due: a
    webhook that was settled or replayed since has others, and is left as it is."""

    id: UUID
    tries: int
    give_up_at: str
    attempt: str
    status: str
    again_in: float | None = None


_SETTLED = Rows(
    {
        "id": "uuid",
        "tries": "int2",
        "give_up_at": "text",
        "attempt": "text",
        "status": "text",
        "again_in": "float8",
    }
)
_SETTLE = text(f"""
    UPDATE deliveries d SET
        status = given.status, retried = d.retried OR given.status = 'pending', tries = d.tries + 1,
        next_at = now() + given.again_in * interval '1 second',
        attempts = (d.attempts::jsonb || given.attempt::jsonb)::json
    FROM {_SETTLED.sql}
    WHERE d.id = given.id AND d.id = ANY(:ids) AND d.id BETWEEN :low AND :high
          AND d.tries = given.tries AND d.give_up_at = given.give_up_at::timestamptz AND d.status = 'pending'
""")


def settle(connection: Connection, settled: Sequence[Settled]) -> None:
    """Write down tries, and what becomes of their webhooks."""
    connection.execute(_SETTLE, {**_SETTLED.given(settled), **span([each.id for each in settled])})


_LATE = """
    SELECT id FROM deliveries WHERE {waits} AND id < :before AND give_up_at < now()
          AND next_at <= now()  -- not one on its way, nor one whose receiver asked to wait
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
"""
_BURY = text("""
    UPDATE deliveries SET status = 'dead', next_at = NULL,
           attempts = (attempts::jsonb || CAST(:attempt AS jsonb))::json
    WHERE id = ANY(:ids) AND id BETWEEN :low AND :high
""")


def bury(connection: Connection, attempt: str, *, limit: int = 1000) -> int:
    """Make dead letters of what is due and has waited for longer than it may, with this as the last `attempt` of each.
    How many."""
    given = {"before": floor_uuid(clock(connection) - LIFE), "limit": limit}
    buried = 0
    for waits in (FRESH, RETRIED):
        late = connection.execute(text(_LATE.format(waits=waits)), given).scalars().all()
        if late:
            connection.execute(_BURY, {**span(late), "attempt": attempt})
        buried += len(late)
    return buried
