"""`python -m bench.raw MODEL BODIES COUNT [DEVICE]`: a model in a bare loop, in one process: decode, predict, encode,
in the batches that a worker makes. Nothing is stored. Prints the items a second.

MODEL and BODIES are `module:name`; `BODIES(count)` gives the inputs as they lie in the store.
"""

import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from local.supervise import TREE
from tundish import staging
from tundish.codec import Codec, codec_for
from tundish.model import Batch, Model, types_of
from tundish.plan import parts
from tundish.testing import Recorder


def rate(model: str, bodies: str, count: int, device: str = "cpu") -> float:
    """Items a second, by a process of its own."""
    command = [sys.executable, "-m", "bench.raw", model, bodies, str(count), device]
    ran = subprocess.run(command, cwd=TREE, stdout=subprocess.PIPE, text=True, check=True)
    return float(ran.stdout)


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


class _Loop:
    def __init__(self, model: type[Model[Any, Any]], device: str) -> None:
        self._reads: Codec
        self._writes: Codec
        self._reads, self._writes = map(codec_for, types_of(model))
        self._model = model()
        self._model.load(device)
        self._device = device
        self._recorder = Recorder()

    def run(self, bodies: Sequence[bytes]) -> list[bytes]:
        """The outputs, as they would be stored, in the order in which they were made."""
        size = self._model.max_batch
        return [output for at in range(0, len(bodies), size) for output in self._batch(bodies[at : at + size])]

    def _batch(self, bodies: Sequence[bytes]) -> list[bytes]:
        items = [self._reads.decode(body) for body in bodies]
        outputs: list[bytes] = []
        for part in self._parts(items):
            inputs = [items[place] for place in part]
            collated = staging.placed(self._model.collate(inputs), self._device)
            results = self._model.predict(Batch(inputs, self._recorder, part, collated=collated))
            staging.settle(self._device)
            outputs += [self._writes.encode(each) for each in staging.fetched(results)]
        return outputs

    def _parts(self, items: Sequence[Any]) -> list[list[int]]:
        if self._model.max_cost is None:
            return [list(range(len(items)))]
        costs = {place: self._model.cost(item) for place, item in enumerate(items)}
        return parts(costs, self._model.max_cost)


def main(model: str, source: str, count: str, device: str = "cpu") -> None:
    make: Callable[[int], list[bytes]] = _named(source)
    loop, bodies = _Loop(_named(model), device), make(int(count))
    # What happens once is not of the loop: kernels are chosen, memory is taken.
    loop.run(bodies[: 4 * loop._model.max_batch])
    began = time.monotonic()
    loop.run(bodies)
    print(len(bodies) / (time.monotonic() - began))


if __name__ == "__main__":
    main(*sys.argv[1:])
