"""backlog: the drain rate with ten thousand, a hundred thousand and a million jobs queued."""

from statistics import median

from bench.measure import OURS, Measured, row
from bench.plan import Plan
from bench.plot import Curve
from bench.report import write
from bench.system import Bench, started

#: A drain of 10,000 takes a fraction of a second: it is measured more often than the others.
RUNS = 9


def rate(bench: Bench, drained: int, since: int) -> float:
    """Jobs a second, from the start of a new worker's first batch until `drained` more than `since` are stored."""
    began = bench.now()
    worker = bench.start_worker()
    ended, at = bench.wait_for(bench.ids[since + drained - 1])
    rate = (ended - since) / (at - bench.first_claim(began))
    bench.stop_worker(worker)
    return rate


def rates(bench: Bench, queued: int, drained: int, runs: int) -> list[float]:
    """Several runs with at least `queued` jobs at the start of each; the jobs are topped up, and what Postgres has to
    do for that is done before."""
    bench.empty()
    found: list[float] = []
    for number in range(runs):
        ended = bench.ended()
        bench.submit("noop", list(range(queued - (len(bench.ids) - ended))))
        bench.tidy()
        found.append(rate(bench, drained, ended))
        print(f"  {queued:,} queued, run {number + 1} of {runs}: {found[-1]:,.0f} jobs/s", flush=True)
    return found


def main(plan: Plan) -> None:
    sizes, runs = plan.of((10_000, 100_000, 1_000_000), (1_000, 5_000, 20_000)), plan.of(RUNS, 1)
    least, *_, most = sizes
    with started("bench.models:Noop") as bench:
        found = {queued: rates(bench, queued, least, runs) for queued in sizes}
    beside = f"{least:,} queued"
    measured = Measured({OURS: found[most], beside: found[least]}, {})
    flat = row(f"{most:,} queued", "jobs/s", measured, reach={beside: 0.9}, moonshot={beside: 1.0})
    curve = Curve(
        name="backlog",
        title="Drain rate by the backlog",
        x_label="jobs queued",
        y_label="jobs a second",
        x=list(map(float, sizes)),
        series={"Tundish": [median(each) for each in found.values()], "flat": [median(found[least])] * len(sizes)},
        log=True,
    )
    write("backlog", plan, [flat], curves=[curve])
