"""Batches: made, read, cancelled, ended. Their lines are in `lines.py`.

Whoever works on a batch takes it first: it is due again after a lease, so that another goes on where he died. The lease
is a courtesy. What holds is that each step says from which state it steps: who comes second writes nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.batchfile import Counts, Status


class NewBatch(NamedTuple):
    """A batch as it is asked for: the file is a blob of `size` bytes, pinned by `etag`."""

    id: UUID
    tenant: int
    model: str
    blob: str
    etag: str
    size: int
    expires_in: float
    webhook: str | None = None
    metadata: bytes | None = None


class BatchRow(NamedTuple):
    """A batch. The lines up to `at_line`, which ends before `at_byte`, are expanded into jobs with ids from `first_job`
    to `last_job`; `fault` is the JSON of an error for which the rest never will be. `left_s`: seconds until it expires.
    `output` and `errors` are the keys of its files."""

    id: UUID
    tenant: int
    model: str
    blob: str
    etag: str
    size: int
    webhook: str | None
    metadata: bytes | None
    expires_at: datetime
    status: Status
    cancel_requested: bool
    fault: bytes | None
    at_byte: int
    at_line: int
    first_job: UUID | None
    last_job: UUID | None
    total: int
    running: int
    succeeded: int
    failed: int
    canceled: int
    output: str | None
    errors: str | None
    finished_at: datetime | None
    left_s: float

    @property
    def counts(self) -> Counts:
        """As they were last counted; what is not counted yet is queued."""
        queued = self.total - self.running - self.succeeded - self.failed - self.canceled
        return Counts(self.total, queued, self.running, self.succeeded, self.failed, self.canceled)

    @property
    def over(self) -> bool:
        """Whether nothing more of it is started."""
        return self.cancel_requested or self.left_s <= 0

    @property
    def expanded(self) -> bool:
        """Whether all of its lines that ever will be have become jobs, or were refused."""
        return self.fault is not None or (self.status is Status.RUNNING and self.at_byte == self.size)


_ROW = ", ".join(BatchRow._fields[:-1]) + ", extract(epoch FROM expires_at - now())::float8"
#: Nobody looks at a batch that has ended.
_OPEN = "due_at IS NOT NULL"


def _row(row: Sequence[Any]) -> BatchRow:
    batch = BatchRow(*row)
    return batch._replace(status=Status(batch.status))


def new_batch(connection: Connection, new: NewBatch) -> datetime:
    """The database's time, from which it expires."""
    at: datetime = connection.execute(
        text("""
            INSERT INTO batches (id, tenant, model, blob, etag, size, webhook, metadata, expires_at)
            VALUES (:id, :tenant, :model, :blob, :etag, :size, :webhook, :metadata,
                    now() + :expires_in * interval '1 second')
            RETURNING now()
        """),
        new._asdict(),
    ).scalar_one()
    return at


def read_batch(connection: Connection, tenant: int, id: UUID) -> BatchRow | None:
    row = connection.execute(
        text(f"SELECT {_ROW} FROM batches WHERE id = :id AND tenant = :tenant"), {"id": id, "tenant": tenant}
    ).one_or_none()
    return None if row is None else _row(row)


def list_batches(connection: Connection, tenant: int, *, before: UUID, since: UUID, limit: int) -> list[BatchRow]:
    """Newest first."""
    rows = connection.execute(
        text(f"""
            SELECT {_ROW} FROM batches WHERE tenant = :tenant AND id < :before AND id >= :since
            ORDER BY id DESC LIMIT :limit
        """),
        {"tenant": tenant, "before": before, "since": since, "limit": limit},
    )
    return [_row(row) for row in rows]


def cancel_batch(connection: Connection, tenant: int, id: UUID) -> BatchRow | None:
    """Ask to cancel it, where it has not ended; None where there is none such."""
    connection.execute(
        text(f"UPDATE batches SET cancel_requested = true WHERE id = :id AND tenant = :tenant AND {_OPEN}"),
        {"id": id, "tenant": tenant},
    )
    return read_batch(connection, tenant, id)


def take_batch(connection: Connection, *, lease: float) -> BatchRow | None:
    """The batch that has been due longest, for `lease` seconds."""
    row = connection.execute(
        text(f"""
            UPDATE batches SET due_at = now() + :lease * interval '1 second'
            WHERE id = (SELECT id FROM batches WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING {_ROW}
        """),
        {"lease": lease},
    ).one_or_none()
    return None if row is None else _row(row)


def postpone_batch(connection: Connection, id: UUID, seconds: float) -> None:
    """It is due in so many seconds: the lease is longer, or the work is done for now."""
    connection.execute(
        text(f"UPDATE batches SET due_at = now() + :seconds * interval '1 second' WHERE id = :id AND {_OPEN}"),
        {"id": id, "seconds": seconds},
    )


def begin_batch(connection: Connection, id: UUID, total: int) -> None:
    """Its lines are counted."""
    connection.execute(
        text("UPDATE batches SET status = 'running', total = :total WHERE id = :id AND status = 'validating'"),
        {"id": id, "total": total},
    )


def break_batch(connection: Connection, batch: BatchRow, fault: bytes, total: int | None = None) -> None:
    """No line behind those that `batch` has will ever be read, unless another has read on; `total`, where they are
    counted just now."""
    connection.execute(
        text(f"""
            UPDATE batches SET status = 'running', fault = :fault, total = COALESCE(:total, total)
            WHERE id = :id AND fault IS NULL AND status = :status AND at_byte = :at_byte AND {_OPEN}
        """),
        {"id": batch.id, "status": batch.status, "at_byte": batch.at_byte, "fault": fault, "total": total},
    )


class Ending(NamedTuple):
    """How a batch ends, and the keys of its files, None for one that would be empty."""

    status: Status
    counts: Counts
    output: str | None
    errors: str | None


def lock_batch(connection: Connection, id: UUID) -> BatchRow | None:
    """The batch as it is until this transaction ends; None where it has ended."""
    row = connection.execute(
        text(f"SELECT {_ROW} FROM batches WHERE id = :id AND {_OPEN} FOR UPDATE"), {"id": id}
    ).one_or_none()
    return None if row is None else _row(row)


def end_batch(connection: Connection, id: UUID, ending: Ending) -> BatchRow:
    """Of a batch that is locked."""
    counts = ending.counts
    row = connection.execute(
        text(f"""
            UPDATE batches SET status = :status, output = :output, errors = :errors, running = 0,
                   succeeded = :succeeded, failed = :failed, canceled = :canceled, finished_at = now(), due_at = NULL
            WHERE id = :id RETURNING {_ROW}
        """),
        {
            "id": id,
            "status": ending.status,
            "output": ending.output,
            "errors": ending.errors,
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "canceled": counts.canceled,
        },
    ).one()
    return _row(row)


def oldest_batch(connection: Connection) -> UUID | None:
    """The smallest id of a batch that has not ended, or of its jobs, which go by another clock: nothing newer may
    go."""
    oldest = f"SELECT LEAST(id, first_job) AS id FROM batches WHERE {_OPEN} ORDER BY 1 LIMIT 1"
    found: UUID | None = connection.execute(text(oldest)).scalar()
    return found


def past_batches(connection: Connection, below: UUID, *, limit: int) -> list[tuple[UUID, int]]:
    """The (id, tenant) of a page of batches that have ended, with ids under `below`."""
    rows = connection.execute(
        text(f"SELECT id, tenant FROM batches WHERE id < :below AND NOT {_OPEN} ORDER BY id LIMIT :limit"),
        {"below": below, "limit": limit},
    )
    return [(row.id, row.tenant) for row in rows]


def delete_batch(connection: Connection, id: UUID) -> None:
    """With its lines."""
    connection.execute(
        text("WITH gone AS (DELETE FROM batch_lines WHERE batch = :id) DELETE FROM batches WHERE id = :id"), {"id": id}
    )
