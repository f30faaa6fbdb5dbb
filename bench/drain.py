"""drain: a no-op model, preloaded by the batch call, batches of 256, results durable; beside stock Celery."""

from bench import stock_celery
from bench.report import compare, write
from bench.system import started

JOBS = 100_000
STOCK_JOBS = 5_000
RUNS = 3


def tundish(bundled: bool = True) -> float:
    """Jobs a second, from the start of the first batch to the last stored result."""
    with started("bench.models:Noop") as bench:
        bench.submit("noop", list(range(JOBS)))
        if not bundled:
            bench.unbundle()
        bench.start_worker()
        ended = bench.wait_for_all(JOBS)
        return JOBS / (ended - bench.first_claim())


def main() -> None:
    peers = {
        "celery prefork 2": lambda: stock_celery.drain(STOCK_JOBS, "prefork", 2),
        "celery solo": lambda: stock_celery.drain(STOCK_JOBS, "solo", 1),
    }
    row = compare(
        "no-op, preloaded",
        "jobs/s",
        tundish,
        peers,
        runs=RUNS,
        reach=dict.fromkeys(peers, 40),
        moonshot=dict.fromkeys(peers, 130),
    )
    write("drain", [row])
