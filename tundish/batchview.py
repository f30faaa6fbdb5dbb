"""How a batch looks to its caller: the JSON of the API and of webhooks."""

import msgspec

from tundish.batchfile import Counts
from tundish.blobs import Blobs
from tundish.ids import time_of, to_text
from tundish.store import BatchRow
from tundish.view import rfc3339

#: The content type of its files.
JSONL = "application/jsonl"


class BatchView(msgspec.Struct):
    """A batch, field by field in the order that callers read it. The URLs hold for 15 minutes; one is null before the
    batch has ended, and where its file would be empty."""

    id: str
    model: str
    status: str
    counts: Counts
    output_url: str | None
    error_url: str | None
    created_at: str
    finished_at: str | None
    expires_at: str
    cancel_requested: bool
    metadata: msgspec.Raw


def batch_view(batch: BatchRow, blobs: Blobs) -> BatchView:
    return BatchView(
        id=to_text("bat", batch.id),
        model=batch.model,
        status=batch.status,
        counts=batch.counts,
        output_url=batch.output and blobs.get_url(batch.output, JSONL),
        error_url=batch.errors and blobs.get_url(batch.errors, JSONL),
        created_at=rfc3339(time_of(batch.id)),
        finished_at=rfc3339(batch.finished_at) if batch.finished_at else None,
        expires_at=rfc3339(batch.expires_at),
        cancel_requested=batch.cancel_requested,
        metadata=msgspec.Raw(batch.metadata or b"{}"),
    )
