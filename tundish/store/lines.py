"""The lines of batch files: which job each became, and what became of that."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from tundish.batchfile import Counts
from tundish.ids import shadow_id
from tundish.job import Status
from tundish.store import jobs
from tundish.store.arrays import Rows, array
from tundish.store.batches import BatchRow
from tundish.store.connect import span
from tundish.store.jobs import NewJob


class NewLine(NamedTuple):
    """A line that became a job, or was refused with an `error` (JSON); with neither, it is canceled."""

    line: int
    custom_id: str | None
    job: UUID | None = None
    error: bytes | None = None


_LINES = Rows({"line": "int4", "custom_id": "text", "job": "uuid", "error": "bytea"})
_ADD = text(f"INSERT INTO batch_lines (batch, {_LINES.names}) SELECT :batch, {_LINES.names} FROM {_LINES.sql}")
_ADVANCE = text("""
    UPDATE batches SET at_byte = :end, at_line = :line, due_at = now() + :lease * interval '1 second',
           first_job = LEAST(first_job, :low), last_job = GREATEST(last_job, :high)
    WHERE id = :id AND status = 'running' AND fault IS NULL AND at_byte = :at_byte AND cancel_requested = :canceled
    RETURNING true
""")


#: One look into the index for each name: for `custom_id = ANY` a plan without statistics reads all lines of the batch
#: (400 ms a page, against 5).
_TAKEN = text("""
    SELECT n.name FROM unnest(CAST(:names AS text[])) AS n(name),
         LATERAL (SELECT FROM batch_lines l WHERE l.batch = :batch AND l.custom_id = n.name LIMIT 1) AS there
""")


def names_taken(connection: Connection, batch: UUID, names: Sequence[str]) -> set[str]:
    """Those custom ids that a line has already."""
    return set(connection.execute(_TAKEN, {"batch": batch, "names": array("text", names)}).scalars())


def add_lines(
    connection: Connection, batch: BatchRow, lines: Sequence[NewLine], new: Sequence[NewJob], *, end: int, lease: float
) -> bool:
    """Expand the lines behind those that `batch` has, up to the offset `end`, with their jobs, and hold it for `lease`
    seconds more. False, and nothing is written, where it is no longer as it was read: another has expanded these lines,
    or it was cancelled."""
    ids = [job.id for job in new]
    advanced = connection.execute(
        _ADVANCE,
        {
            "id": batch.id,
            "at_byte": batch.at_byte,
            "canceled": batch.cancel_requested,
            "end": end,
            "line": lines[-1].line,
            "lease": lease,
            "low": min(ids, default=None),
            "high": max(ids, default=None),
        },
    ).scalar()
    if not advanced:
        return False
    connection.execute(_ADD, {"batch": batch.id, **_LINES.given(lines)})
    if new:
        jobs.submit(connection, new, batch.id)
    return True


#: A line's job, read by its id: between the first and the last of a batch lie the jobs of everybody else.
_JOBS = """
    JOIN jobs j ON j.id = l.job AND j.id = ANY(ARRAY(SELECT job FROM batch_lines WHERE batch = :id))
                   AND j.id BETWEEN :low AND :high
"""
#: A job that was deleted is taken for failed.
_COUNT = text(f"""
    SELECT count(*) FILTER (WHERE status = 1), count(*) FILTER (WHERE status = 2),
           count(*) FILTER (WHERE status = 3), count(*) FILTER (WHERE status = 4)
    FROM (
        SELECT CASE WHEN l.job IS NULL AND l.error IS NULL THEN 4
                    WHEN j.id IS NULL THEN 3
                    ELSE {jobs.SHOWN} END AS status
        FROM batch_lines l LEFT {_JOBS} LEFT JOIN claims c ON j.status = 1 AND c.id = j.claim
        WHERE l.batch = :id AND l.line <= :line
    ) AS lines
""")
_KEEP_COUNTS = text("""
    UPDATE batches SET running = :running, succeeded = :succeeded, failed = :failed, canceled = :canceled
    WHERE id = :id AND due_at IS NOT NULL
          AND (running, succeeded, failed, canceled) <> (:running, :succeeded, :failed, :canceled)
""")
_NONE = UUID(int=0)


def _first_to_last(batch: BatchRow) -> dict[str, UUID]:
    return {"low": batch.first_job or _NONE, "high": batch.last_job or _NONE}


def count_lines(connection: Connection, batch: BatchRow) -> Counts:
    """How the lines of a batch stand; a caller sees them from now on. Lines that never will be expanded are failed."""
    _plan_for_many(connection)
    known = {"id": batch.id, "line": batch.at_line, **_first_to_last(batch)}
    running, succeeded, failed, canceled = connection.execute(_COUNT, known).one()
    if batch.fault is not None:
        failed += batch.total - batch.at_line
    queued = batch.total - running - succeeded - failed - canceled
    counts = Counts(batch.total, queued, running, succeeded, failed, canceled)
    given = {"running": running, "succeeded": succeeded, "failed": failed, "canceled": canceled}
    connection.execute(_KEEP_COUNTS, {"id": batch.id, **given})
    return counts


_OPEN_OF = """
    SELECT j.id, CASE WHEN j.status = 0 OR c.started_at IS NULL THEN 4 ELSE j.status END AS becomes
    FROM {source} LEFT JOIN claims c ON c.id = j.claim AND j.status = 1
    WHERE {chosen} AND j.status IN (0, 1) AND NOT j.cancel_requested
    ORDER BY j.id LIMIT :limit FOR UPDATE OF j SKIP LOCKED
"""
_OPEN_LINES = text(_OPEN_OF.format(source=f"batch_lines l {_JOBS}", chosen="l.batch = :id"))
_OPEN_SHADOWS = text(_OPEN_OF.format(source="jobs j", chosen="j.id = ANY(:ids) AND j.id BETWEEN :low AND :high"))
_ASKED = Rows({"id": "uuid", "becomes": "int2"})
_CANCEL = text(f"""
    WITH asked AS (
        UPDATE jobs j SET
            status = given.becomes, finished_at = CASE WHEN given.becomes = 4 THEN now() END, cancel_requested = true
        FROM {_ASKED.sql}
        WHERE j.id = given.id AND j.id = ANY(:ids) AND j.id BETWEEN :low AND :high
        RETURNING j.id, j.status, j.claim
    ), told AS (
        UPDATE claims c SET dropped = c.dropped || gone.ids
        FROM (SELECT claim, array_agg(id) AS ids FROM asked WHERE status = 4 GROUP BY claim) gone
        WHERE c.id = gone.claim AND c.started_at IS NULL
    )
    SELECT FROM asked
""")


def cancel_lines(connection: Connection, batch: BatchRow, *, limit: int) -> list[UUID]:
    """As `cancel`, for a page of jobs of a batch, each with its shadow; the ids of those jobs that it found open."""
    _plan_for_many(connection)
    ids = _cancel(connection, _OPEN_LINES, {"id": batch.id, **_first_to_last(batch), "limit": limit})
    if ids:
        shadows = [shadow_id(id) for id in ids]
        _cancel(connection, _OPEN_SHADOWS, {**span(shadows), "limit": limit})
    return ids


def _cancel(connection: Connection, which: TextClause, given: dict[str, object]) -> list[UUID]:
    """Those that were open."""
    asked = connection.execute(which, given).all()
    ids = [each.id for each in asked]
    if ids:
        connection.execute(_CANCEL, {**_ASKED.given(asked), **span(ids)})
    return ids


class LineRow(NamedTuple):
    """A line and what became of it. `status` is that of its job, None where it has none (any more); `error` is JSON."""

    line: int
    custom_id: str | None
    job: UUID | None
    error: bytes | None
    status: Status | None = None
    content_type: str | None = None
    size: int | None = None
    body: bytes | None = None
    blob: str | None = None


_READ = text("""
    SELECT line, custom_id, job, error FROM batch_lines
    WHERE batch = :id AND line > :after AND line <= :last ORDER BY line
""")
_ENDS = text("""
    SELECT j.id, r.error, j.status, r.content_type, r.size, r.body, r.blob
    FROM jobs j LEFT JOIN results r ON r.id = j.id AND r.id = ANY(:ids) AND r.id BETWEEN :low AND :high
    WHERE j.id = ANY(:ids) AND j.id BETWEEN :low AND :high
""")


def read_lines(connection: Connection, batch: UUID, *, after: int, last: int) -> list[LineRow]:
    """The lines behind the line `after`, up to `last`, with the ends of their jobs."""
    lines = [LineRow(*row) for row in connection.execute(_READ, {"id": batch, "after": after, "last": last})]
    ids = [line.job for line in lines if line.job]
    if not ids:
        return lines
    _plan_for_many(connection)
    ends = {id: (error, Status(status), *output) for id, error, status, *output in connection.execute(_ENDS, span(ids))}
    return [LineRow(*line[:3], *ends[line.job]) if line.job in ends else line for line in lines]


def _plan_for_many(connection: Connection) -> None:
    """In this transaction, no loop is nested in a loop: on tables that were filled just now the planner takes thousands
    of lines for a few (250 of 100,000 lines took over 8 s)."""
    connection.execute(text("SELECT set_config('enable_nestloop', 'off', true)"))
