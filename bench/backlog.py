"""backlog: the drain rate with a million jobs queued; beside that with ten thousand."""

from bench.report import compare, write
from bench.system import started

LONG, SHORT = 1_000_000, 10_000
#: Jobs over which a rate is measured: all of the short one.
DRAINED = 10_000
RUNS = 3


def rate(queued: int) -> float:
    """Jobs a second, from the start of the first batch until DRAINED of `queued` are stored."""
    with started("bench.models:Noop") as bench:
        bench.submit("noop", list(range(queued)))
        bench.start_worker()
        ended = bench.wait_for_all(DRAINED)
        return DRAINED / (ended - bench.first_claim())


def main() -> None:
    row = compare(
        "a million queued",
        "jobs/s",
        lambda: rate(LONG),
        {"10,000 queued": lambda: rate(SHORT)},
        runs=RUNS,
        reach={"10,000 queued": 0.9},
        moonshot={"10,000 queued": 1.0},
    )
    write("backlog", [row])
