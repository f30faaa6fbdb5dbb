"""Models that cost nothing, or a known amount."""

from tundish import Batch, Model, Reject


class Noop(Model[int, int]):
    """Gives back its number."""

    name = "noop"
    version = "1"
    max_batch = 256

    def predict(self, batch: Batch[int]) -> list[int | Reject]:
        return list(batch)
