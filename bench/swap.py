"""swap: three models on a device that holds two, bursts for one after the other; beside plain least-recently-used by
the same shelf. Once with host memory for what makes room, so that a swap is a copy, and once without."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measure import compare
from bench.model import inputs
from bench.plan import Plan
from bench.report import write
from bench.swap_models import TWO, write_weights
from bench.system import started
from local.up import python

MODELS = "bench.swap_models:First,Second,Third"
BURSTS = 120


def bursts(count: int = BURSTS) -> list[tuple[str, int]]:
    """Which model, and how many jobs: of mixed sizes, the same each time."""
    chance = random.Random(7)
    return [(chance.choice(("first", "second", "third")), chance.choice((2, 4, 8, 16))) for _ in range(count)]


def drain(worker: str, host_memory: int, count: int) -> float:
    """Jobs a second, from the first burst to the last stored result."""
    settings = {"TUNDISH_DEVICE_MEMORY": str(TWO), "TUNDISH_HOST_MEMORY": str(host_memory)}
    with TemporaryDirectory() as folder, started(MODELS, SWAP_WEIGHTS=folder, **settings) as bench:
        write_weights(Path(folder))
        bench.system.supervisor.start(python("worker", worker, grace=5))
        bench.wait_for_workers()
        began = bench.now()
        for model, size in bursts(count):
            bench.submit(model, inputs(size))
        jobs = sum(size for _, size in bursts(count))
        return jobs / (bench.wait_for_all(jobs) - began)


def main(plan: Plan) -> None:
    count = plan.of(BURSTS, 6)
    loads, copies = 1, 2**30  # bytes of host memory
    plain = "plain LRU"
    policy = compare(
        "both load what they swap",
        "jobs/s",
        lambda: drain("workers", loads, count),
        {plain: lambda: drain("bench.swap_models", loads, count)},
        runs=plan.runs,
        reach={plain: 2},
        moonshot={plain: 5},
    )
    whole = compare(
        "a swap is a copy",
        "jobs/s",
        lambda: drain("workers", copies, count),
        {
            plain: lambda: drain("bench.swap_models", loads, count),
            "LRU that copies": lambda: drain("bench.swap_models", copies, count),
        },
        runs=plan.runs,
        reach={plain: 2},
        moonshot={plain: 5},
    )
    write("swap", plan, [policy, whole])
