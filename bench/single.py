"""single: as drain, one job a message; beside stock Celery."""

from bench import drain, stock_celery
from bench.report import compare, write


def main() -> None:
    peers = {"celery prefork 2": lambda: stock_celery.drain(drain.STOCK_JOBS, "prefork", 2)}
    row = compare(
        "no-op, one job a message",
        "jobs/s",
        lambda: drain.tundish(bundled=False),
        peers,
        runs=drain.RUNS,
        reach=dict.fromkeys(peers, 15),
        moonshot=dict.fromkeys(peers, 25),
    )
    write("single", [row])
