"""Patience: how long a blob is asked for that its store does not give, although it gives others."""

import time
from uuid import UUID

from tundish.blobs import Blobs, BlobUnavailable

#: Seconds for which such a blob is asked for.
PATIENCE = 30.0


class Patience:
    """Since when a store of blobs does not give what jobs or batches ask for. What ails a blob, as a damaged disk or a
    lost key, may stay, and nobody else waits for it for good."""

    def __init__(self) -> None:
        self._since: dict[UUID, float] = {}

    def ends(self, whose: UUID, blobs: Blobs, key: str) -> bool:
        """What lies under `key` was not given once more. Raises BlobUnavailable where others are not either: then the
        store is waited for, and nobody is to blame."""
        try:
            blobs.probe(key)
        except BlobUnavailable:
            self._since.clear()
            raise
        now = time.monotonic()
        return now >= self._since.setdefault(whose, now) + PATIENCE

    def given(self, whose: UUID) -> None:
        """What it asked for was given, or nobody asks any more."""
        self._since.pop(whose, None)
