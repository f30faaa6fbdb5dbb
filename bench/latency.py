"""latency: 200 no-op jobs a second, from the submit call over HTTP to the stored result, which an answer with it could
carry; beside stock Celery from publishing to running, where nothing is stored."""

import json
import subprocess
from collections.abc import Callable

from bench import paced
from bench.connection import request
from bench.measure import measure, quantile, row
from bench.peers.drain import consuming, environment, worker_words
from bench.peers.environment import CELERY, CannotRun
from bench.peers.stores import valkey
from bench.plan import Plan
from bench.report import write
from bench.system import started
from local.supervise import TREE

RATE = 200.0
#: A p99 of ten seconds is that of 20 jobs: it is measured more often than the other figures.
RUNS = 9
#: Jobs that come before the first that counts, of both: for ten seconds each does what comes once, behind its start.
WARM = 2_000


def tundish(count: int) -> list[float]:
    """Milliseconds of each job. A system for each run, as Celery has: none idles beside the other."""
    body = json.dumps({"model": "noop", "input": 1}).encode()
    with started("bench.models:Noop") as bench:
        bench.start_worker()
        bench.wait_for_workers()
        raw = request("POST", "/v1/jobs", bench.system.api.key, body).decode("latin-1")
        redis_url = bench.system.supervisor.environment["TUNDISH_REDIS_URL"]
        took = paced.run(paced.Order(bench.system.settings.port, redis_url, raw, RATE, WARM + count))
    return [1000 * each for each in took[WARM:]]


def celery(count: int) -> list[float]:
    """Milliseconds of each job. The solo pool: another one hands each job to a second process."""
    python = CELERY.python()
    with valkey() as socket:
        given = environment(socket)
        with consuming([python, *worker_words("solo", 1)], given):
            command = [python, "-m", "bench.peers.celery_app", "pace", str(WARM + count), str(RATE)]
            ran = subprocess.run(command, cwd=TREE, env=given, capture_output=True, text=True)
            if ran.returncode != 0:
                raise CannotRun(f"did not run its jobs: {(ran.stderr.strip().splitlines() or [''])[-1]}")
            return [1000 * each for each in json.loads(ran.stdout)[WARM:]]


def shown(took: list[float]) -> str:
    return f"p50 {quantile(took, 0.5):.2f} ms, p99 {quantile(took, 0.99):.2f} ms"


def at(fraction: float) -> Callable[[list[float]], float]:
    return lambda took: quantile(took, fraction)


def main(plan: Plan) -> None:
    count = plan.of(2_000, 200)
    peer = "celery, nothing stored"
    measured = measure("latency", lambda: tundish(count), {peer: lambda: celery(count)}, plan.of(RUNS, 1), shown)
    rows = [
        row(
            f"200 jobs/s, {name}",
            "ms",
            measured.of(at(fraction)),
            reach={peer: 2.5},
            moonshot={peer: 1.5},
            better="lower",
        )
        for name, fraction in (("p50", 0.5), ("p99", 0.99))
    ]
    write("latency", plan, rows, environments=(CELERY,))
