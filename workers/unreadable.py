"""Unreadable: a blob of a batch that its store does not give, although it gives others. It is waited for until the
batch is over, and no longer: retention keeps all that is newer than a batch which has not ended."""

from tundish import store
from tundish.blobs import BlobError, BlobUnavailable
from workers.chores import Tools


def give_up(tools: Tools, batch: store.BatchRow, error: BlobError) -> None:
    """Nobody reads the blob any more. Raises BlobUnavailable where it may yet be read."""
    if isinstance(error, BlobUnavailable):
        if not batch.over:
            raise error
        tools.blobs.probe()
