"""A worker that takes few bytes of inputs into memory, and its model."""

import sys

from tests.models import Value
from tundish import Batch, Model, Reject
from workers import run
from workers.__main__ import main
from workers.gpu import host_memory

ROOM = 64 << 20


class Weighed(Model[bytes, Value]):
    """Says how many bytes it got."""

    name = "weighed"
    version = "1"

    def predict(self, batch: Batch[bytes]) -> list[Value | Reject]:
        return [Value(len(item)) for item in batch]


if __name__ == "__main__":
    run.INPUTS_SHARE = ROOM / host_memory()
    sys.exit(main())
