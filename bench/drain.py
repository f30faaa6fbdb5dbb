"""drain: a no-op model, preloaded by the batch call, batches of 256, results durable; beside stock Celery,
celery-batches and Ray Serve's task consumer."""

import os

from bench.measure import compare
from bench.peers import drain as peers
from bench.peers.environment import BATCHES, CELERY, RAY
from bench.plan import Plan
from bench.report import write
from bench.system import started


def tundish(jobs: int, bundled: bool = True, workers: int = 1) -> float:
    """Jobs a second, from the start of the first batch to the last stored result."""
    with started("bench.models:Noop") as bench:
        with bench.preloading(workers):
            bench.submit("noop", list(range(jobs)))
            if not bundled:
                bench.unbundle()
        ended = bench.wait_for_all(jobs)
        return jobs / (ended - bench.first_claim())


def main(plan: Plan) -> None:
    jobs, celery_jobs = plan.of(100_000, 3_000), plan.of(5_000, 500)
    batches_jobs = plan.of(10_240, 1_024)  # whole batches: the rest of one would wait for its interval
    cores = os.cpu_count() or 1
    sides = {
        f"celery prefork {cores}": lambda: peers.celery(celery_jobs, "prefork", cores),
        "celery solo": lambda: peers.celery(celery_jobs, "solo", 1),
        f"celery-batches prefork {cores}": lambda: peers.batches(batches_jobs, "prefork", cores),
        "celery-batches solo": lambda: peers.batches(batches_jobs, "solo", 1),
        "ray serve": lambda: peers.ray(celery_jobs),
    }
    row = compare(
        f"no-op, preloaded, {cores} workers",
        "jobs/s",
        lambda: tundish(jobs, workers=cores),
        sides,
        runs=plan.runs,
        reach=dict(zip(sides, (40, 40, 35, 35, 50), strict=True)),
        moonshot=dict(zip(sides, (130, 130, 115, 115, 160), strict=True)),
    )
    write("drain", plan, [row], environments=(CELERY, BATCHES, RAY))
