"""memory: what a queued job takes in Redis and in Postgres, and whether a worker grows over a million jobs."""

import psutil

from bench.measure import OURS, Measured, Row, row
from bench.plan import Plan
from bench.plot import Curve
from bench.report import write
from bench.system import Bench, started

#: Points of the curve; at the first one a worker has all that it needs.
POINTS = 10
#: Of what it was when warm: an allocator rounds, a leak of 100 bytes a job would be far over it.
GROWTH = 1.05


def main(plan: Plan) -> None:
    jobs = plan.of(1_000_000, 10_000)
    with started("bench.models:Noop") as bench:
        empty = _redis(bench), _postgres(bench)
        sizes = []
        for _ in range(2):  # the same again: a job in a long queue costs what it costs in a short one
            bench.submit("noop", list(range(jobs // 2)))
            sizes.append((_redis(bench), _postgres(bench)))
        worker = psutil.Process(bench.start_worker())
        done, resident = [], []
        for point in range(1, POINTS + 1):
            bench.wait_for(bench.ids[point * jobs // POINTS - 1])
            done.append(point * jobs / POINTS)
            resident.append(worker.memory_info().rss / 2**20)
    rows = [
        _queued(name, [(half - at) * 2 / jobs, (full - half) * 2 / jobs], jobs)
        for name, at, half, full in zip(("Redis", "Postgres"), empty, *sizes, strict=True)
    ]
    warm = f"after {jobs // POINTS:,} jobs"
    measured = Measured({OURS: [resident[-1]], warm: [resident[0]]}, {})
    rows.append(row(f"worker RSS after {jobs:,} jobs", "MiB", measured, reach={warm: GROWTH}, better="lower"))
    curve = Curve("memory", "A worker's memory", "jobs done", "MiB resident", done, {"Tundish": resident})
    write("memory", plan, rows, curves=[curve])


def _queued(name: str, halves: list[float], jobs: int) -> Row:
    """Bytes of a job of the second half, beside one of the first."""
    first = f"of the first {jobs // 2:,}"
    measured = Measured({OURS: [halves[1]], first: [halves[0]]}, {})
    return row(f"{name} bytes a queued job", "bytes", measured, reach={first: GROWTH}, better="lower")


def _redis(bench: Bench) -> int:
    return int(bench.redis.info("memory")["used_memory"])


def _postgres(bench: Bench) -> int:
    row = bench.database.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row
    return int(row[0])
