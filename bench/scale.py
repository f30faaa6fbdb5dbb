"""scale: 1 to 16 workers whose model takes 50 ms for a batch of 16, and no CPU; beside one worker's rate, times 16."""

from dataclasses import dataclass
from statistics import median

from bench.measure import OURS, Measured, row
from bench.models import Sleeper
from bench.plan import Plan
from bench.plot import Curve
from bench.report import write
from bench.system import Bench, started

WORKERS = (1, 2, 4, 8, 16)
#: Jobs a second that a worker of this model cannot pass.
IDEAL = Sleeper.max_batch / Sleeper.seconds


@dataclass(frozen=True)
class Point:
    """Jobs a second, and the cores that all processes together took meanwhile."""

    rate: float
    cores: float


def point(bench: Bench, workers: int, seconds: float) -> Point:
    """A drain by the running workers, which are stopped while the jobs are queued."""
    bench.empty()
    jobs = int(workers * IDEAL * seconds)
    with bench.workers_stopped():
        bench.submit("sleeper", list(range(jobs)))
        cpu = sum(bench.cpu().values())
    ended = bench.wait_for_all(jobs)
    took = ended - bench.first_claim()
    return Point(jobs / took, (sum(bench.cpu().values()) - cpu) / took)


def points(plan: Plan) -> dict[int, list[Point]]:
    """Each number of workers a few times; they are started as they are needed."""
    found: dict[int, list[Point]] = {}
    with started("bench.models:Sleeper") as bench:
        running = 0
        for workers in plan.of(WORKERS, WORKERS[:2]):
            while running < workers:
                running += 1
                bench.start_worker(f"worker-{running}")
            bench.wait_for_workers(workers)
            found[workers] = [point(bench, workers, plan.of(8.0, 1.0)) for _ in range(plan.runs)]
            shown = ", ".join(f"{each.rate:,.0f} jobs/s with {each.cores:.2f} cores" for each in found[workers])
            print(f"  {workers} workers: {shown}", flush=True)
    return found


def main(plan: Plan) -> None:
    found = points(plan)
    rates = {workers: median(each.rate for each in runs) for workers, runs in found.items()}
    most = max(rates)
    linear = f"{most} times one worker"
    measured = Measured(
        {OURS: [each.rate for each in found[most]], linear: [most * each.rate for each in found[1]]}, {}
    )
    cores = {f"cores with {workers} workers": median(each.cores for each in runs) for workers, runs in found.items()}
    scaled = row(
        f"{most} workers",
        "jobs/s",
        measured,
        reach={linear: 0.9},
        moonshot={linear: 0.97},
        note=f"all processes together took {cores[f'cores with {most} workers']:.2f} cores",
    )
    curve = Curve(
        name="scale",
        title="Drain rate by the number of workers, 50 ms a batch of 16",
        x_label="workers",
        y_label="jobs a second",
        x=list(map(float, rates)),
        series={"Tundish": list(rates.values()), "linear": [workers * rates[1] for workers in rates]},
        log=True,
    )
    write("scale", plan, [scaled], curves=[curve], figures=cores)
