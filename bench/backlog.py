"""backlog: the drain rate with ten thousand, a hundred thousand and a million jobs queued."""

from contextlib import ExitStack
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


def again(bench: Bench, queued: int, drained: int) -> float:
    """One more run with at least `queued` jobs at its start; they are topped up, and what Postgres has to do for that
    is done before."""
    ended = bench.ended()
    bench.submit("noop", list(range(queued - (len(bench.ids) - ended))))
    bench.tidy()
    return rate(bench, drained, ended)


def main(plan: Plan) -> None:
    sizes, runs = plan.of((10_000, 100_000, 1_000_000), (1_000, 5_000, 20_000)), plan.of(RUNS, 1)
    least, *_, most = sizes
    found: dict[int, list[float]] = {queued: [] for queued in sizes}
    with ExitStack() as stack:
        # A system each, so that they are measured in turn: the machine changes its speed from minute to minute.
        benches = {queued: stack.enter_context(started("bench.models:Noop")) for queued in sizes}
        for number in range(runs):
            for queued, bench in benches.items():
                found[queued].append(again(bench, queued, least))
                print(f"  {queued:,} queued, run {number + 1} of {runs}: {found[queued][-1]:,.0f} jobs/s", flush=True)
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
