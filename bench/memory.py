"""memory: what a queued job takes in Redis and in Postgres, and whether a worker grows over a million jobs."""

import psutil

from bench.report import Row, write
from bench.system import Bench, started

JOBS = 1_000_000
#: After so many jobs a worker has all that it needs.
WARM = 100_000


def main() -> None:
    with started("bench.models:Noop") as bench:
        before = _redis(bench), _postgres(bench)
        bench.submit("noop", list(range(JOBS)))
        after = _redis(bench), _postgres(bench)
        worker = psutil.Process(bench.start_worker())
        bench.wait_for_all(WARM)
        warm = worker.memory_info().rss
        bench.wait_for_all(JOBS)
        end = worker.memory_info().rss
    rows = [
        _row(f"{name} bytes a queued job", "bytes", (now - then) / JOBS)
        for name, then, now in zip(("Redis", "Postgres"), before, after, strict=True)
    ]
    warmed = f"after {WARM:,} jobs"
    rows.append(_row(f"worker RSS after {JOBS:,} jobs", "MiB", end / 2**20, {warmed: warm / 2**20}, {warmed: 1.05}))
    write("memory", rows)


def _row(
    case: str, unit: str, ours: float, peers: dict[str, float] | None = None, reach: dict[str, float] | None = None
) -> Row:
    peers = peers or {}
    ratio = {name: ours / value for name, value in peers.items()}
    return Row(case, unit, ours, peers, ratio, 1, 0.0, "lower", reach or {}, {}, "")


def _redis(bench: Bench) -> int:
    return int(bench.redis.info("memory")["used_memory"])


def _postgres(bench: Bench) -> int:
    row = bench.database.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row
    return int(row[0])
