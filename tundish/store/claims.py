"""Claim, start, renew, record, release, reap: what workers do with jobs, each fenced by the attempt."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Row, text

from tundish.job import Priority, Status
from tundish.queue import Queue
from tundish.store.arrays import Rows, array
from tundish.store.connect import ends, span
from tundish.store.statement import Statement

#: An id, or its hexadecimal digits as messages carry them.
Id = TypeVar("Id", UUID, str)


class Unsent(NamedTuple):
    """A queued job whose message must be sent again, how many workers died with it, whether it must run alone, and when
    it was sent. It is `in_place` where it was not started, and then let go: its message goes in front of all that
    waits; else a worker may have died of it, or have it still."""

    id: UUID
    queue: Queue
    deaths: int
    alone: bool
    sent_at: datetime
    in_place: bool

    @classmethod
    def of(cls, row: Row[Any]) -> "Unsent":
        return cls(row.id, queue_of(row), row.deaths, row.alone, row.sent_at, row.in_place)


def queue_of(row: Row[Any]) -> Queue:
    return Queue(row.model, row.version, Priority(row.priority), row.lane)


class ClaimedJob(NamedTuple):
    """A job in the hands of a worker, with its input. `attempt` is the fence of all that is written about it."""

    id: UUID
    tenant: int
    attempt: int
    deaths: int
    content_type: str
    body: bytes | None
    blob: str | None
    timeout: float | None
    webhook: str | None
    input_url: str | None
    size: int
    etag: str | None


class Claimed(NamedTuple):
    """The jobs of a claim; `begun`: it has started, and `start` is not needed."""

    jobs: list[ClaimedJob]
    begun: bool


def _claim(by: str, where: str) -> Statement:
    return Statement(f"""
    WITH claimed AS (
        UPDATE jobs j SET status = 1, attempt = attempt + 1, claim = {by}
        {where} j.id = ANY(:ids) AND j.id BETWEEN :low AND :high
              AND status = 0 AND expires_at > now() AND (:alone OR (deaths < :last AND NOT alone))
        RETURNING j.claim, j.id, tenant, attempt, deaths
    ), taken AS (
        SELECT c.claim, c.id, c.tenant, c.attempt, c.deaths, q.content_type, q.body, q.blob, q.timeout, q.webhook,
               q.input_url, q.size, q.etag
        FROM claimed c JOIN requests q ON q.id = c.id AND q.id = ANY(:ids) AND q.id BETWEEN :low AND :high
    ), lease AS (
        INSERT INTO claims (id, worker, jobs, attempts, lease_until, started_at)
        SELECT claim, :worker, array_agg(id), array_agg(attempt), now() + :lease * interval '1 second',
               CASE WHEN claim = :begin AND max(deaths) < :last AND count(input_url) = 0 AND count(blob) = 0
                         AND NOT EXISTS (SELECT FROM endpoints WHERE enabled AND 'job.started' = ANY(events))
                    THEN now() END
        FROM taken GROUP BY claim
        RETURNING id, started_at
    )
    SELECT claim = (SELECT id FROM lease WHERE started_at IS NOT NULL), * FROM taken ORDER BY id
    """)


#: One claim, and several: the join takes a tenth more.
_CLAIM = _claim("CAST(:claim AS uuid)", "WHERE")
_CLAIMS = _claim(
    "given.by",
    "FROM unnest(CAST(:ids AS uuid[]), CAST(:claims AS uuid[])) AS given(id, by) WHERE j.id = given.id AND",
)


def claim(
    connection: Connection,
    claims: Mapping[UUID, Sequence[Id]],
    worker: UUID,
    *,
    lease: float,
    max_attempts: int,
    begin: UUID | None = None,
) -> dict[UUID, Claimed]:
    """Take what is still queued of the ids of each of these claims, under a lease of `lease` seconds: by claim, in
    their order, less those of which nothing was. A job on its last allowed attempt is taken only where each claim has
    one id. `begin`: the claim that predict follows at once. It starts then, unless an endpoint is to hear of that, an
    input must be brought from elsewhere first, or a job is on its last attempt."""
    wanted = [(id, claim) for claim, ids in claims.items() for id in ids]
    if len(claims) > 1:
        wanted.sort(key=itemgetter(0))  # so that all lock their rows in one order
    given = {
        **span([id for id, _ in wanted]),
        "worker": worker,
        "lease": lease,
        "alone": all(len(ids) == 1 for ids in claims.values()),
        "last": max_attempts - 1,
        "begin": begin,
    }
    jobs: dict[UUID, list[ClaimedJob]] = {claim: [] for claim in claims}
    begun: set[UUID] = set()
    if len(claims) == 1:
        rows = _CLAIM.rows(connection, {**given, "claim": next(iter(claims))})
    else:
        rows = _CLAIMS.rows(connection, {**given, "claims": array("uuid", [claim for _, claim in wanted])})
    for row in rows:
        jobs[row[1]].append(ClaimedJob._make(row[2:]))
        if row[0]:
            begun.add(row[1])
    return {claim: Claimed(each, claim in begun) for claim, each in jobs.items() if each}


_PART = text("""
    WITH moved AS (
        UPDATE jobs SET claim = :new
        WHERE id = ANY(:ids) AND id BETWEEN :low AND :high AND claim = :claim AND status = 1
    ), held AS (
        SELECT h.id = ANY(:ids) AS goes, array_agg(h.id ORDER BY h.place) AS jobs,
               array_agg(h.attempt ORDER BY h.place) AS attempts
        FROM claims c, unnest(c.jobs, c.attempts) WITH ORDINALITY AS h(id, attempt, place)
        WHERE c.id = :claim GROUP BY goes
    ), parted AS (
        INSERT INTO claims (id, worker, jobs, attempts, lease_until, dropped)
        SELECT :new, c.worker, held.jobs, held.attempts, c.lease_until, c.dropped
        FROM held JOIN claims c ON held.goes AND c.id = :claim
    )
    UPDATE claims c SET jobs = held.jobs, attempts = held.attempts FROM held WHERE NOT held.goes AND c.id = :claim
""")


def part(connection: Connection, claim: UUID, new: UUID, ids: Sequence[UUID]) -> None:
    """Let `ids`, some but not all jobs of a claim that has not started, be a claim of their own under the same lease.
    Where the claim is lost, so is the new one."""
    held = text("SELECT true FROM claims WHERE id = :claim FOR UPDATE")  # who gives it back is waited for, or waits
    if connection.execute(held, {"claim": claim}).scalar():
        connection.execute(_PART, {**span(ids), "claim": claim, "new": new})


class Started(NamedTuple):
    """A claim whose predict begins: the jobs that were cancelled or have expired since they were claimed, and whether
    an endpoint wants to hear of the others."""

    dropped: set[UUID]
    heard: bool


_START = Statement("""
    WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    UPDATE claims SET started_at = now(), lease_until = now() + CAST(:lease AS float8) * interval '1 second' FROM quick
    WHERE id = CAST(:claim AS uuid) AND lease_until > now()
    RETURNING dropped, EXISTS (SELECT FROM endpoints WHERE enabled AND 'job.started' = ANY(events))
""")


def start(connection: Connection, claim: UUID, *, lease: float) -> Callable[[], Started | None]:
    """Predict begins now: from here on a death is charged and the jobs no longer expire. This is sent, and done though
    the process is killed in the next instant; what this returns waits for the answer, and must be called before
    anything else is asked of the connection. It gives None where the claim is lost: nothing of it may be recorded.

    Nobody waits for the disk: a start that a crash of Postgres forgets costs no more than an uncharged death."""
    answer = _START.send(connection, {"claim": claim, "lease": lease})

    def started() -> Started | None:
        for dropped, heard in answer():
            return Started(set(dropped), heard)
        return None

    return started


def renew(connection: Connection, claims: Sequence[UUID], *, lease: float) -> None:
    """Heart-beat: hold those of the claims that are not lost for `lease` seconds more."""
    connection.execute(
        text("""
            UPDATE claims SET lease_until = now() + :lease * interval '1 second', overdue = false
            WHERE id = ANY(:claims)
        """),
        {"claims": array("uuid", claims), "lease": lease},
    )


def overdue(connection: Connection, claim: UUID) -> None:
    """Predict is over its time-out: unless it comes back and the claim is renewed, the lease runs out, and `reap`
    takes that for a hang and not for a death."""
    connection.execute(text("UPDATE claims SET overdue = true WHERE id = :claim"), {"claim": claim})


def to_cancel(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of `ids` whose callers have asked to cancel them."""
    rows = connection.execute(
        text("SELECT id FROM jobs WHERE id = ANY(:ids) AND id BETWEEN :low AND :high AND cancel_requested"), span(ids)
    )
    return set(rows.scalars())


class Finished(NamedTuple):
    """How a job ended under `attempt`: an output (`body`, or `blob` of `size` bytes), an error (JSON), or neither:
    canceled."""

    id: UUID
    attempt: int
    status: Status
    content_type: str | None = None
    body: bytes | None = None
    blob: str | None = None
    size: int | None = None
    error: bytes | None = None


class Ran(NamedTuple):
    """A claim whose jobs were predicted, all of them in `predict_ms`."""

    claim: UUID
    predict_ms: float


_ENDS = Rows(
    {
        "id": "uuid",
        "attempt": "int4",
        "status": "int2",
        "content_type": "text",
        "body": "bytea",
        "blob": "text",
        "size": "int8",
        "error": "bytea",
    }
)
_RAN = Rows({"claim": "uuid", "predict_ms": "float8"})
_RECORD = Statement(f"""
    WITH may AS MATERIALIZED (
        SELECT NOT EXISTS (SELECT FROM endpoints WHERE enabled AND tenant = ANY(:unheard_by)) AS record
    ), ended AS (
        SELECT * FROM {_ENDS.sql} WHERE (SELECT record FROM may)
    ), done AS (
        UPDATE jobs j SET status = ended.status, finished_at = now()
        FROM ended
        WHERE j.id = ended.id AND j.id = ANY(:id) AND j.id BETWEEN :low AND :high
              AND j.attempt = ended.attempt AND j.status = 1
        RETURNING j.id, j.tenant, j.attempt, j.claim, content_type, body, blob, size, error
    ), ran AS MATERIALIZED (
        SELECT given.claim, c.worker, cardinality(c.jobs) AS batch_size, given.predict_ms,
               COALESCE(c.started_at, now() - given.predict_ms * interval '1 millisecond') AS started_at
        FROM {_RAN.sql} JOIN claims c ON c.id = given.claim AND c.id = ANY(:claim)
    ), kept AS (
        INSERT INTO results (id, tenant, attempt, content_type, size, body, blob, error, started_at, predict_ms,
                             batch_size, worker)
        SELECT id, tenant, attempt, content_type, COALESCE(size, octet_length(body)), body, blob, error, started_at,
               predict_ms, batch_size, worker
        FROM done LEFT JOIN ran USING (claim)
    ), closed AS (
        DELETE FROM claims WHERE :close AND (SELECT record FROM may) AND id = ANY(:claim)
    )
    SELECT given.id FROM unnest(CAST(:id AS uuid[])) AS given(id) LEFT JOIN done USING (id) WHERE done.id IS NULL
""")


def record(
    connection: Connection,
    finished: Sequence[Finished],
    ran: Sequence[Ran],
    *,
    close: bool = True,
    unheard_by: Collection[int] = (),
) -> list[UUID]:
    """Write the ends of jobs, with what their claims tell of worker, start and batch, and `close` the claims. The ids
    whose end was accepted: a job that another attempt holds, or that has ended, is left as it is.

    Nothing at all is written where one of the tenants `unheard_by` has an enabled endpoint: the statement itself looks,
    so that no end goes by an endpoint which was registered before."""
    ids = [end.id for end in finished]
    low, high = ends(ids)
    given = {**_ENDS.given(finished), **_RAN.given(ran), "low": low, "high": high, "close": close}
    given["unheard_by"] = array("int4", list(unheard_by))
    # It answers with those that it refused, for they are few.
    refused = {id for (id,) in _RECORD.rows(connection, given)}
    return [id for id in ids if id not in refused] if refused else ids


class Requeued(NamedTuple):
    """What became of the jobs of claims that were given up: queued again, or ended ((id, tenant), canceled by wish
    or failed)."""

    unsent: list[Unsent]
    ended: list[tuple[UUID, int]]


class Judgement(NamedTuple):
    """What becomes of a claim whose lease ran out: at `max_attempts` deaths a job fails with `lost`; one that was over
    its time-out alone fails with `timeout` (both JSON)."""

    max_attempts: int
    lost: bytes
    timeout: bytes


def waiting(connection: Connection, ids: Sequence[UUID] | Sequence[str]) -> list[Unsent]:
    """Those of some jobs that are queued."""
    rows = connection.execute(
        text("""
            SELECT id, model, version, lane, priority, deaths, alone, sent_at, true AS in_place FROM jobs
            WHERE id = ANY(:ids) AND id BETWEEN :low AND :high AND status = 0
        """),
        span(ids),
    )
    return list(map(Unsent.of, rows))


def release(connection: Connection, claims: Sequence[UUID]) -> Requeued:
    """Give claims back without charging a death, and those that had not started as if they had not been made."""
    held = text("SELECT id FROM claims WHERE id = ANY(:claims) ORDER BY id FOR UPDATE")
    return _requeue(connection, connection.execute(held, {"claims": array("uuid", claims)}).scalars().all(), None)


def reap(connection: Connection, judgement: Judgement, *, limit: int = 100) -> Requeued:
    """Take back the jobs of up to `limit` claims whose lease ran out, by the database's clock. A claim that had started
    charges a death to each of its jobs; one that had not, to those that were claimed in vain again and again. One that
    was over its time-out charges none: each of its jobs runs alone from then on, and fails if it was alone already."""
    late = text("""
        SELECT id FROM claims WHERE lease_until < now() ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED
    """)
    return _requeue(connection, connection.execute(late, {"limit": limit}).scalars().all(), judgement)


#: A claim that is lost before it has started charges no death: it is counted as `vain`. Once SUSPECT were vain the next
#: one is charged all the same, for the input may end whoever reads it; where that death would be the job's last, only
#: once HOPELESS were, for what others died of must not fail it.
SUSPECT, HOPELESS = 3, 20

_REQUEUE = text("""
    WITH gone AS (
        DELETE FROM claims c WHERE c.id = ANY(:claims) RETURNING c.jobs, c.attempts, cardinality(c.jobs) = 1 AS lone,
            :judged AND c.overdue AS hung, :judged AND NOT c.overdue AS died, c.started_at IS NOT NULL AS started
    ), held AS (
        SELECT j.id, j.attempt, j.deaths, j.cancel_requested, gone.lone, gone.hung,
               NOT (:judged OR gone.started) AS in_place,
               gone.died AND (gone.started OR j.vain >=
                   CASE WHEN j.deaths + 1 < :max_attempts THEN :suspect ELSE :hopeless END) AS died,
               gone.died AND NOT gone.started AS vain
        FROM gone, unnest(gone.jobs, gone.attempts) AS h(id, attempt)
        JOIN jobs j ON j.id = h.id AND j.attempt = h.attempt AND j.status = 1
    ), fate AS (
        SELECT id, attempt, hung, died, vain, in_place,
               CASE WHEN cancel_requested THEN 4
                    WHEN hung AND lone OR died AND deaths + 1 >= :max_attempts THEN 3
                    ELSE 0 END AS status
        FROM held
    ), moved AS (
        UPDATE jobs j SET
            status = fate.status, deaths = j.deaths + CAST(fate.died AS int),
            vain = j.vain + CAST(fate.vain AND NOT fate.died AS int), alone = j.alone OR fate.hung,
            sent_at = CASE WHEN fate.in_place THEN j.sent_at ELSE now() END,
            finished_at = CASE WHEN fate.status > 0 THEN now() END
        FROM fate
        WHERE j.id = fate.id AND j.attempt = fate.attempt AND j.status = 1
        RETURNING j.id, j.tenant, j.attempt, j.model, j.version, j.priority, j.lane, j.status, j.deaths, j.alone,
                  j.sent_at, fate.hung, fate.in_place
    ), kept AS (
        INSERT INTO results (id, tenant, attempt, error)
        SELECT id, tenant, attempt, CASE WHEN hung THEN CAST(:timeout AS bytea) ELSE CAST(:lost AS bytea) END
        FROM moved WHERE status = 3
    )
    SELECT * FROM moved
""").bindparams(suspect=SUSPECT, hopeless=HOPELESS)


def _requeue(connection: Connection, claims: Sequence[UUID], judgement: Judgement | None) -> Requeued:
    """Of claims whose rows are locked."""
    if not claims:  # most of the time, and to plan what follows takes longer than to look
        return Requeued([], [])
    judged = (judgement or Judgement(0, b"", b""))._asdict()
    given = {"claims": array("uuid", claims), **judged, "judged": judgement is not None}
    rows = connection.execute(_REQUEUE, given).all()
    return Requeued(
        [Unsent.of(row) for row in rows if row.status == Status.QUEUED],
        [(row.id, row.tenant) for row in rows if row.status != Status.QUEUED],
    )
