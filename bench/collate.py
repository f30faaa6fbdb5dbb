"""collate: images that the host normalises for a device that takes 20 ms a batch, ahead of it; beside the same model,
which normalises them where it predicts."""

import time
from collections.abc import Sequence
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from bench.measure import compare
from bench.plan import Plan
from bench.report import write
from bench.system import started
from tundish import Batch, Model, Reject

Images: TypeAlias = NDArray[numpy.float32]

SIDE = 224
#: Seconds of the device for a batch. The host took about as long for 16 images where this was written.
DEVICE = 0.02
#: Of ImageNet's colours.
MEAN, DEVIATION = numpy.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], numpy.float32)
NOISE = numpy.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), numpy.uint8)


class Within(Model[int, float]):
    """Turns an image by as many pixels as its item says, and gives its mean. The device is one that sleeps."""

    name = "within"
    version = "1"
    max_batch = 16

    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        return self._on_device(_normalised(batch))

    def _on_device(self, images: Images) -> list[float | Reject]:
        time.sleep(DEVICE)
        return [float(each) for each in images[:, 0, 0, 0]]


class Ahead(Within):
    name = "ahead"

    def collate(self, items: Sequence[int]) -> Images:
        return _normalised(items)

    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        return self._on_device(batch.collated)


def _normalised(turns: Sequence[int]) -> Images:
    """(images, SIDE, SIDE, colours)."""
    turned = numpy.stack([numpy.roll(NOISE, turn, 0) for turn in turns])
    images: Images = (turned.astype(numpy.float32) / numpy.float32(255) - MEAN) / DEVIATION
    return images


def rate(model: type[Within], jobs: int) -> float:
    """Jobs a second, from the start of the first batch to the last stored result."""
    with started(f"{model.__module__}:{model.__qualname__}") as bench:
        with bench.preloading(1):
            bench.submit(model.name, list(range(jobs)))
        ended = bench.wait_for_all(jobs)
        return jobs / (ended - bench.first_claim())


def main(plan: Plan) -> None:
    jobs = plan.of(8_000, 320)
    row = compare(
        "16 images a batch, a device of 20 ms",
        "jobs/s",
        lambda: rate(Ahead, jobs),
        {"in predict": lambda: rate(Within, jobs)},
        runs=plan.runs,
    )
    write("collate", plan, [row])
