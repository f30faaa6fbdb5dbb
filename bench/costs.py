"""costs: what a job costs each part of the running system, in microseconds of CPU and in bytes: together with others,
in flushes and batches, and alone. bench.scaling plans with them."""

import json
import time
from collections import Counter
from collections.abc import Mapping

from bench import load
from bench.connection import request
from bench.plan import Plan
from bench.report import write
from bench.system import Bench, started
from tundish.ids import to_text

#: Workers whose idling is measured together, for one alone does too little.
IDLE_WORKERS = 4

INPUT = {"text": "Casting goes on while the ladle is changed."}
BODY = json.dumps({"model": "words", "input": INPUT}).encode()

#: What each part has used: microseconds of CPU, and bytes of the write-ahead log.
Meters = Mapping[str, float]


def meters(bench: Bench) -> Meters:
    used: Counter[str] = Counter()
    for name, seconds in bench.cpu().items():
        used["worker" if name.startswith("worker") else name] += seconds * 1e6  # type: ignore[assignment]  # floats too
    row = bench.database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row
    return {**used, "wal": float(row[0])}


class Books:
    """Figures by `part what how`, each a difference of meters by a count."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._before = meters(bench)
        self.figures: dict[str, float] = {}

    def begin(self) -> None:
        self._vacuum()
        # The first change of a page after a checkpoint writes the whole page: a busy day has its share of those.
        self._bench.database.execute("CHECKPOINT")
        self._before = meters(self._bench)

    def enter(self, what: str, count: float, less: str = "") -> None:
        """What was used since `begin`, for each of `count`; without what is already entered as `less`. What must be
        vacuumed after it is of its own cost, and not of the next one's."""
        self._vacuum()
        for part, now in meters(self._bench).items():
            each = (now - self._before.get(part, 0.0)) / count
            self.figures[f"{part} {what}"] = max(0.0, each - self.figures.get(f"{part} {less}", 0.0))

    def _vacuum(self) -> None:
        self._bench.database.execute("VACUUM jobs, requests, results, claims, workers")


def submit(bench: Bench, connections: int, count: int, wait: bool = False) -> None:
    raw = request("POST", "/v1/jobs", bench.system.api.key, BODY)
    if wait:
        raw = raw.replace(b"\r\n", b"\r\nPrefer: wait=10\r\n", 1)
    order = load.Order(
        bench.system.settings.port, load.requests([raw]), connections=connections, count=count, keep=True
    )
    bench.accepted(load.ids(load.run(order, 200 if wait else 202)))


def read(bench: Bench, count: int) -> None:
    raw = [request("GET", f"/v1/jobs/{to_text('job', id)}", bench.system.api.key) for id in bench.ids[:1000]]
    load.run(load.Order(bench.system.settings.port, load.requests(raw), count=count), 200)


def idle(books: Books, what: str, seconds: float) -> None:
    books.begin()
    time.sleep(seconds)
    books.enter(what, seconds)


def sizes(bench: Bench) -> tuple[int, int]:
    """Bytes in Redis, and in the tables of jobs with their indexes."""
    row = bench.database.execute(
        "SELECT sum(pg_total_relation_size(relid))"
        " FROM unnest(ARRAY['jobs', 'requests', 'results']) AS name, pg_partition_tree(name)"
    ).fetchone()
    assert row
    return int(bench.redis.info("memory")["used_memory"]), int(row[0])


def connections(bench: Bench) -> float:
    """That Postgres holds for the system."""
    row = bench.database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    ).fetchone()
    assert row
    return float(row[0])


def measured(bench: Bench, plan: Plan) -> dict[str, float]:
    many, few, seconds = plan.of(20_000, 500), plan.of(500, 50), plan.of(15.0, 1.0)
    books = Books(bench)
    redis_before, tables_before = sizes(bench)
    books.begin()
    submit(bench, 64, many)
    books.enter("submit together", many)
    redis_after, _ = sizes(bench)
    books.begin()
    submit(bench, 1, few)
    books.enter("submit alone", few)
    without = connections(bench)
    workers = [bench.start_worker(f"worker-{number + 1}") for number in range(IDLE_WORKERS)]
    bench.wait_for_workers(IDLE_WORKERS)
    bench.wait_for_all(many + few)
    with bench.workers_stopped():
        bench.submit("words", [INPUT] * many)
        books.begin()
    bench.wait_for_all(2 * many + few)
    books.enter("run together", many)
    _, tables_after = sizes(bench)
    books.begin()
    submit(bench, 1, few, wait=True)
    books.enter("run alone", few, less="submit alone")
    books.begin()
    read(bench, many)
    books.enter("read together", many)
    held = connections(bench)
    # Both at the end: what a system does that has just started, or has just drained, is no part of what a worker costs.
    idle(books, "idle with workers", seconds)
    for worker in workers:
        bench.stop_worker(worker)
    idle(books, "idle", seconds)
    beats = {
        f"{part} beat": max(0.0, books.figures[f"{part} idle with workers"] - books.figures[f"{part} idle"])
        / IDLE_WORKERS
        for part in ("api", "postgres", "valkey", "wal")
    }
    return (
        books.figures
        | beats
        | {
            "redis bytes queued": (redis_after - redis_before) / many,
            "table bytes": (tables_after - tables_before) / (2 * many + few),
            "connections of a worker": (held - without) / IDLE_WORKERS,
            "connections of an api": without,
        }
    )


def main(plan: Plan) -> None:
    with started("bench.models:Words") as bench:
        figures = measured(bench, plan)
    for name, value in figures.items():
        print(f"  {name}: {value:,.1f}")
    write("costs", plan, [], figures=figures)
