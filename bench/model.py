"""model: a network 2,048 wide on the CPU in batches of 64, drained; beside the raw torch loop in one process."""

import json
import os

from bench import raw
from bench.measure import compare
from bench.plan import Plan
from bench.report import write
from bench.system import started

MODEL = "bench.mlp:Mlp"
#: Three runs of one hour gave the raw loop 12,100, 11,400 and 7,700 jobs/s.
RUNS = 9


def inputs(count: int) -> list[list[float]]:
    return [[(number + place) % 97 / 97 for place in range(16)] for number in range(count)]


def bodies(count: int) -> list[bytes]:
    return [json.dumps(each).encode() for each in inputs(count)]


def tundish(jobs: int, workers: int) -> float:
    """Jobs a second, from the start of the first batch to the last stored result."""
    with started(MODEL) as bench:
        with bench.preloading(workers):
            bench.submit("mlp", inputs(jobs))
        ended = bench.wait_for_all(jobs)
        return jobs / (ended - bench.first_claim())


def main(plan: Plan) -> None:
    jobs, workers = plan.of(30_000, 1_280), os.cpu_count() or 1
    row = compare(
        f"MLP of 2,048, {workers} workers",
        "jobs/s",
        lambda: tundish(jobs, workers),
        {"raw loop": lambda: raw.rate(MODEL, "bench.model:bodies", jobs)},
        runs=plan.of(RUNS, 1),
        reach={"raw loop": 0.83},
        moonshot={"raw loop": 0.95},
    )
    write("model", plan, [row])
