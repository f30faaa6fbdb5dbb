"""single: as drain, one job a message; beside stock Celery."""

import os

from bench.drain import tundish
from bench.measure import compare
from bench.peers import drain as peers
from bench.peers.environment import CELERY
from bench.plan import Plan
from bench.report import write


def main(plan: Plan) -> None:
    jobs, celery_jobs = plan.of(100_000, 3_000), plan.of(5_000, 500)
    cores = os.cpu_count() or 1
    sides = {
        f"celery prefork {cores}": lambda: peers.celery(celery_jobs, "prefork", cores),
        "celery solo": lambda: peers.celery(celery_jobs, "solo", 1),
    }
    row = compare(
        "no-op, one job a message",
        "jobs/s",
        lambda: tundish(jobs, bundled=False),
        sides,
        runs=plan.runs,
        reach=dict.fromkeys(sides, 15),
        moonshot=dict.fromkeys(sides, 25),
    )
    write("single", plan, [row], environments=(CELERY,))
