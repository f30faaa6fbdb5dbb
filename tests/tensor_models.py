"""Models on arrays, for the tests."""

import numpy

from tundish import Batch, Model, Reject


class Doubled(Model[numpy.ndarray, numpy.ndarray]):
    """Gives back an array, twice as large in each place."""

    name = "doubled"
    version = "1"

    def predict(self, batch: Batch[numpy.ndarray]) -> list[numpy.ndarray | Reject]:
        return [item * 2 for item in batch]


class Tagged(Model[dict[str, numpy.ndarray], dict[str, numpy.ndarray]]):
    """Gives back arrays under other names."""

    name = "tagged"
    version = "1"

    def predict(self, batch: Batch[dict[str, numpy.ndarray]]) -> list[dict[str, numpy.ndarray] | Reject]:
        return [{f"out.{name}": array for name, array in item.items()} for item in batch]
