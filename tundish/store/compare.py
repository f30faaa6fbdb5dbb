"""How versions of a model have done, side by side, and what a shadow answered beside its job."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.job import Status
from tundish.store.arrays import array

#: The quantiles in which times are told, by their names in an answer.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Looked(NamedTuple):
    """How many jobs, of any model, were looked at, and the oldest of them."""

    jobs: int
    oldest: UUID | None


class Figures(NamedTuple):
    """What became of one version's jobs, `shadows` of them copies of another's. `errors` counts by code; quantiles are
    in milliseconds, None where nothing has ended."""

    version: str
    jobs: int
    shadows: int
    succeeded: int
    failed: int
    canceled: int
    errors: dict[str, int]
    queued_ms: list[float] | None
    predict_ms: list[float] | None
    total_ms: list[float] | None


_NEWEST = """
    WITH newest AS MATERIALIZED (
        SELECT id, model, version, status, expires_at, finished_at FROM jobs
        WHERE tenant = :tenant AND id >= :since ORDER BY id DESC LIMIT :budget
    )
"""
_FIGURES = text(
    _NEWEST
    + """
    , asked AS (
        SELECT j.version, j.status, q.shadow_of, r.predict_ms, r.error,
               CAST(extract(epoch FROM r.started_at - j.expires_at) + q.expires_in AS float8) * 1000 AS queued,
               CAST(extract(epoch FROM j.finished_at - j.expires_at) + q.expires_in AS float8) * 1000 AS total
        FROM newest j JOIN requests q ON q.id = j.id AND q.id >= :since
             LEFT JOIN results r ON r.id = j.id AND r.id >= :since
        WHERE j.model = :model AND j.version = ANY(:versions)
    ), coded AS (
        SELECT version, json_object_agg(code, jobs) AS errors FROM (
            -- No parsing: a message may hold an escaped NUL, which Postgres' JSON refuses. The code stands first.
            SELECT version, substring(convert_from(error, 'UTF8') from '"code": "([a-z_]+)"') AS code, count(*) AS jobs
            FROM asked WHERE error IS NOT NULL GROUP BY 1, 2
        ) each GROUP BY version
    ), wanted AS (SELECT CAST(:quantiles AS float8[]) AS q)
    SELECT version, count(*), count(shadow_of), count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3),
           count(*) FILTER (WHERE status = 4),
           COALESCE((SELECT errors FROM coded c WHERE c.version = asked.version), '{}'),
           percentile_cont((SELECT q FROM wanted)) WITHIN GROUP (ORDER BY queued),
           percentile_cont((SELECT q FROM wanted)) WITHIN GROUP (ORDER BY predict_ms),
           percentile_cont((SELECT q FROM wanted)) WITHIN GROUP (ORDER BY total)
    FROM asked GROUP BY version ORDER BY version
"""
)
_LOOKED = text(_NEWEST + "SELECT count(*), (SELECT id FROM newest ORDER BY id LIMIT 1) FROM newest")


def compare(
    connection: Connection, tenant: int, model: str, versions: Sequence[str], since: UUID, *, budget: int = 20_000
) -> tuple[Looked, list[Figures]]:
    """Figures of the newest jobs since the id `since`, by version. No index knows a model: at most `budget` jobs of the
    tenant are looked at."""
    window = {"tenant": tenant, "since": since, "budget": budget}
    asked = {"model": model, "versions": list(versions), "quantiles": array("float8", list(QUANTILES.values()))}
    return (
        Looked(*connection.execute(_LOOKED, window).one()),
        [Figures(*row) for row in connection.execute(_FIGURES, {**window, **asked})],
    )


class Outcome(NamedTuple):
    """How a job ended, with its output inline or in a blob; it has neither where that is too large to be compared."""

    status: Status
    content_type: str | None
    body: bytes | None
    blob: str | None


class Pair(NamedTuple):
    """A job and its shadow, each of which has succeeded or failed."""

    id: UUID
    version: str
    shadow_version: str
    job: Outcome
    shadow: Outcome


_PAIRS = text(
    _NEWEST
    + """
    , pair AS (
        SELECT j.id, j.version, s.version AS shadow_version, j.status, r.content_type, r.body, r.blob,
               s.status AS shadow_status, t.content_type AS shadow_type, t.body AS shadow_body,
               t.blob AS shadow_blob, COALESCE(r.size, 0) + COALESCE(t.size, 0) AS size
        FROM newest s JOIN requests q ON q.id = s.id AND q.id >= :since AND q.shadow_of IS NOT NULL
             JOIN jobs j ON j.id = q.shadow_of AND j.id >= :since
             LEFT JOIN results r ON r.id = j.id AND r.id >= :since AND r.size <= :largest
             LEFT JOIN results t ON t.id = s.id AND t.id >= :since AND t.size <= :largest
        WHERE s.model = :model AND s.version = ANY(:versions) AND j.version = ANY(:versions)
              AND s.status IN (2, 3) AND j.status IN (2, 3)
        ORDER BY s.id DESC LIMIT :limit
    ), weighed AS (
        SELECT *, sum(size) OVER (ORDER BY id DESC) AS bytes FROM pair
    )
    SELECT * FROM weighed WHERE bytes <= :size
"""
)


def pairs(
    connection: Connection,
    tenant: int,
    model: str,
    versions: Sequence[str],
    since: UUID,
    *,
    budget: int = 20_000,
    limit: int = 1000,
    size: int = 8 * 1024 * 1024,
    largest: int = 1024 * 1024,
) -> list[Pair]:
    """The newest pairs of a job and its shadow in which both are of `versions`: at most `limit`, and no more than hold
    `size` bytes of outputs, each of which has at most `largest`."""
    rows: Sequence[Any] = connection.execute(
        _PAIRS,
        {
            "tenant": tenant,
            "model": model,
            "versions": list(versions),
            "since": since,
            "budget": budget,
            "limit": limit,
            "size": size,
            "largest": largest,
        },
    ).all()
    return [
        Pair(
            row.id,
            row.version,
            row.shadow_version,
            Outcome(Status(row.status), row.content_type, row.body, row.blob),
            Outcome(Status(row.shadow_status), row.shadow_type, row.shadow_body, row.shadow_blob),
        )
        for row in rows
    ]
