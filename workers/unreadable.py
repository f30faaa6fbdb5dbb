"""Unreadable: a blob of a batch that its store does not give, although it gives others. It is waited for until the
batch is over, and no longer: retention keeps all that is newer than a batch which has not ended."""

from tundish import store
from tundish.blobs import BlobError, BlobUnavailable, batch_prefix
from workers.chores import Tools


def give_up(tools: Tools, batch: store.BatchRow, error: BlobError) -> None:
    """Nobody asks for the blob any more, but once more at most. Raises BlobUnavailable where it may yet be read."""
    if not isinstance(error, BlobUnavailable):
        return
    if not batch.over or not tools.patience.ends(batch.id, tools.blobs, batch_prefix(batch.tenant, batch.id)):
        raise error
