"""A whole Tundish for a bench, in a temporary folder: its workers start when the bench says so."""

import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg
import redis

from bench import durable
from local.http import free_port
from local.place import read_state
from local.up import System, python, running, threads
from tundish import queue, store
from tundish.catalog import describe, load_models
from tundish.ids import from_text
from tundish.settings import Settings
from workers.intake import unpack

#: Inputs of one batch call.
CHUNK = 10_000
#: Seconds between two looks.
LOOK = 0.02
#: Seconds in which some job must end, or the bench is stuck.
STUCK = 120.0


@dataclass
class Bench:
    """The system, and connections to its database and its Redis. `ids` are those of the jobs in their order."""

    system: System
    database: "psycopg.Connection[Any]"
    redis: "redis.Redis"
    ids: list[UUID] = field(default_factory=list)

    def submit(self, model: str, inputs: Sequence[Any]) -> None:
        """By the batch call, over HTTP."""
        for at in range(0, len(inputs), CHUNK):
            body = json.dumps({"model": model, "inputs": inputs[at : at + CHUNK]}).encode()
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.system.api.key}"}
            request = urllib.request.Request(f"{self.system.api.url}/v1/jobs:batch", body, headers)
            with urllib.request.urlopen(request, timeout=120) as answer:
                self.accepted([each.get("id", each) for each in json.load(answer)["data"]])

    def accepted(self, texts: Sequence[Any]) -> None:
        """Remember the ids of accepted jobs. Raises RuntimeError where there is something else."""
        for text in texts:
            id = from_text("job", text) if isinstance(text, str) else None
            if id is None:
                raise RuntimeError(f"a job was refused: {text}")
            self.ids.append(id)

    def unbundle(self) -> None:
        """Let each message that waits in Redis carry one job."""
        for name in self.redis.scan_iter("tundish:*"):
            if (source := queue.Queue.parse(name.decode())) is None:
                continue
            bundled = self.redis.lrange(name, 0, -1)
            ids = [id for each in bundled for id in unpack(each).ids]
            single = [queue.encode(source, queue.Message((id,))) for id in ids]
            self.redis.delete(name)
            for at in range(0, len(single), CHUNK):
                self.redis.rpush(name, *single[at : at + CHUNK])

    def empty(self) -> None:
        """Forget all jobs."""
        self.database.execute("TRUNCATE jobs, requests, results, claims")
        for name in self.redis.scan_iter("tundish:*"):
            self.redis.delete(name)
        self.ids.clear()

    def tidy(self) -> None:
        """Do now what Postgres would do in the background, at a moment of its own, for what was submitted."""
        self.database.execute("VACUUM (ANALYZE) jobs, requests, results")
        self.database.execute("CHECKPOINT")

    def start_worker(self, name: str = "worker") -> int:
        """Its process id."""
        return self.system.supervisor.start(python(name, "workers", grace=5))

    def start_workers(self, count: int) -> None:
        """As `./dev up --workers` does: they share the cores."""
        self.system.supervisor.environment |= threads(count)
        for number in range(1, count + 1):
            self.start_worker(f"worker-{number}")

    @contextmanager
    def preloading(self, workers: int) -> Iterator[None]:
        """What is submitted in the block is queued before any of so many workers, which have loaded their models, runs
        an instruction of its own."""
        self.start_workers(workers)
        self.wait_for_workers(workers)
        with self.workers_stopped():
            yield

    def stop_worker(self, pid: int) -> None:
        """Let it end in good order."""
        worker = psutil.Process(pid)
        worker.send_signal(signal.SIGTERM)
        # It is the supervisor's child, which waits for it too: whoever comes second finds nobody.
        psutil.wait_procs([worker], timeout=30)

    @contextmanager
    def workers_stopped(self) -> Iterator[None]:
        """No worker runs an instruction during the block."""
        pids = [each["pid"] for each in self._children() if each["name"].startswith("worker")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def wait_for_all(self, count: int) -> float:
        """Seconds since 1970, by the database's clock, when all of `count` jobs were stored. Raises RuntimeError where
        some are not long after the last of them."""
        ended, at = self.wait_for(self.ids[-1])
        until = time.monotonic() + STUCK
        while ended < count:
            if time.monotonic() > until:
                raise RuntimeError(f"{count - ended} of {count} jobs have not ended; see {self.system.place.logs}")
            time.sleep(LOOK)
            ended, at = self._ended()
        return at

    def wait_for(self, id: UUID) -> tuple[int, float]:
        """Wait until a job has ended; how many have by then, and the seconds since 1970 by the database's clock. One
        row is looked at meanwhile: counting a million would be a load of its own, on the machine that is measured."""
        until = time.monotonic() + STUCK
        before = 0
        while True:
            row = self.database.execute("SELECT status FROM jobs WHERE id = %s", [id]).fetchone()
            if row and row[0] >= 2:
                return self._ended()
            if time.monotonic() > until:
                ended, _ = self._ended()
                if ended == before:
                    raise RuntimeError(f"no job ended for {STUCK:.0f} s; {ended} have; see {self.system.place.logs}")
                before, until = ended, time.monotonic() + STUCK
            time.sleep(LOOK)

    def ended(self) -> int:
        """How many jobs have."""
        return self._ended()[0]

    def _ended(self) -> tuple[int, float]:
        row = self.database.execute(
            "SELECT count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status > 2),"
            " extract(epoch FROM now()) FROM jobs"
        ).fetchone()
        assert row
        if row[1]:
            raise RuntimeError(f"{row[1]} jobs failed; see {self.system.place.logs}")
        return int(row[0]), float(row[2])

    def first_claim(self, since: float = 0) -> float:
        """Seconds since 1970 when the first batch began, after `since`."""
        row = self.database.execute(
            "SELECT extract(epoch FROM min(started_at)) FROM results WHERE started_at > to_timestamp(%s)", [since]
        ).fetchone()
        assert row
        return float(row[0])

    def now(self) -> float:
        """Seconds since 1970 by the database's clock."""
        row = self.database.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
        assert row
        return float(row[0])

    def wait_for_workers(self, count: int = 1) -> None:
        """Until so many workers serve."""
        until = time.monotonic() + STUCK
        while True:
            row = self.database.execute(
                "SELECT count(*) FROM workers WHERE state IN ('idle', 'busy') AND seen_at > now() - interval '30 s'"
            ).fetchone()
            if row and row[0] >= count:
                return
            if time.monotonic() > until:
                raise RuntimeError(f"{count} workers do not serve; see {self.system.place.logs}")
            time.sleep(0.05)

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each process of the system has used, with its children."""
        return {each["name"]: _cpu(each["pid"]) for each in self._children()}

    def _children(self) -> list[dict[str, Any]]:
        state = read_state(self.system.place.root) or {"children": []}
        return [each for each in state["children"] if each["pid"]]


def _cpu(pid: int) -> float:
    try:
        process = psutil.Process(pid)
        return sum(map(_used, [process, *process.children(recursive=True)]))
    except (psutil.NoSuchProcess, ProcessLookupError):
        return 0.0


def _used(process: psutil.Process) -> float:
    """What a child used that has ended is in its parent's account, in ticks of 10 ms. What a process used itself its
    clock tells to the nanosecond: what is idle uses a tick or two in all the time of a measurement."""
    times = process.cpu_times()
    ended = times.children_user + times.children_system
    if sys.platform == "linux":
        return float(ended + time.clock_gettime(~process.pid << 3 | 2))  # as clock_getcpuclockid(3) names it
    return float(ended + times.user + times.system)


@contextmanager
def started(models: str, **settings: str) -> Iterator[Bench]:
    """A system with no worker that knows `models` all the same."""
    with tempfile.TemporaryDirectory(prefix="tundish-bench-") as folder:
        given = {
            "TUNDISH_MODELS": models,
            "TUNDISH_DATA_DIR": folder,
            "TUNDISH_PORT": str(free_port()),
            "TUNDISH_MAX_BODY": str(2**28),
            "TUNDISH_API_KEY": "a key for benches",
        } | settings
        before = dict(os.environ)
        for name in [each for each in os.environ if each.startswith("TUNDISH_")]:
            del os.environ[name]
        os.environ.update(given)
        try:
            with running(Settings.from_environment(), workers=0) as system:
                _interruptible()
                url = system.supervisor.environment["TUNDISH_DATABASE_URL"]
                durable.check_ours(url)
                engine = store.engine(url)
                with engine.begin() as connection:
                    served = load_models(models, Path.cwd())
                    store.register(connection, [describe(one) for one in served])
                engine.dispose()
                client = redis.Redis.from_url(system.supervisor.environment["TUNDISH_REDIS_URL"])
                with client, psycopg.connect(url, autocommit=True) as database:
                    yield Bench(system, database, client)
        finally:
            _interruptible()
            os.environ.clear()
            os.environ.update(before)


def _interruptible() -> None:
    """A supervisor takes the signals for itself, and here nobody asks it for them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
