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
    """A batch, field by field in the order that callers read it. A URL is null before the batch has ended, and where
    its file would be empty."""

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
    """For who asks: its URLs need no key, and hold for 15 minutes."""
    return _view(batch, *(key and blobs.get_url(key, JSONL) for key in (batch.output, batch.errors)))


def lasting_view(batch: BatchRow, public_url: str) -> BatchView:
    """For a webhook, which may be read days later: its URLs are those of the API, and hold as long as the batch."""
    here = f"{public_url}/v1/batches/{to_text('bat', batch.id)}"
    return _view(batch, batch.output and f"{here}/output", batch.errors and f"{here}/error")


def _view(batch: BatchRow, output_url: str | None, error_url: str | None) -> BatchView:
    return BatchView(
        id=to_text("bat", batch.id),
        model=batch.model,
        status=batch.status,
        counts=batch.counts,
        output_url=output_url,
        error_url=error_url,
        created_at=rfc3339(time_of(batch.id)),
        finished_at=rfc3339(batch.finished_at) if batch.finished_at else None,
        expires_at=rfc3339(batch.expires_at),
        cancel_requested=batch.cancel_requested,
        metadata=msgspec.Raw(batch.metadata or b"{}"),
    )
