"""A whole Tundish for a bench, in a temporary folder: its worker starts when the bench says so."""

import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis

from local.demo import free_port
from local.up import System, python, running
from tundish import queue, store
from tundish.catalog import describe, load_models
from tundish.settings import Settings
from workers.intake import unpack

#: Inputs of one batch call.
CHUNK = 10_000


@dataclass(frozen=True)
class Bench:
    """The system, and connections to its database and its Redis."""

    system: System
    database: "psycopg.Connection[Any]"
    redis: "redis.Redis"

    def submit(self, model: str, inputs: Sequence[Any]) -> None:
        """By the batch call, over HTTP."""
        for at in range(0, len(inputs), CHUNK):
            body = json.dumps({"model": model, "inputs": inputs[at : at + CHUNK]}).encode()
            request = urllib.request.Request(
                f"{self.system.api.url}/v1/jobs:batch", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=120) as answer:
                refused = [each for each in json.load(answer)["data"] if "error" in each]
            if refused:
                raise RuntimeError(f"a job was refused: {refused[0]}")

    def unbundle(self) -> None:
        """Let each message that waits in Redis carry one job."""
        for name in self.redis.scan_iter("tundish:*"):
            bundled = self.redis.lrange(name, 0, -1)
            source = queue.Queue.parse(name.decode())
            ids = [id for each in bundled for id in unpack(each).ids]
            single = [queue.encode(source, queue.Message((id,))) for id in ids]
            self.redis.delete(name)
            for at in range(0, len(single), CHUNK):
                self.redis.rpush(name, *single[at : at + CHUNK])

    def start_worker(self, name: str = "worker") -> int:
        """Its process id."""
        return self.system.supervisor.start(python(name, "workers", grace=5))

    def wait_for_all(self, count: int) -> float:
        """Seconds since 1970, by the database's clock, when the last of `count` jobs, or more, was stored. It looks
        seldom, the later the longer it takes: each look reads all jobs, on the machine that is measured."""
        began, pause = time.monotonic(), 0.1
        while True:
            time.sleep(pause)
            row = self.database.execute(
                "SELECT count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status > 2),"
                " extract(epoch FROM max(finished_at)) FROM jobs"
            ).fetchone()
            assert row
            if row[1]:
                raise RuntimeError(f"{row[1]} jobs failed")
            if row[0] >= count:
                return float(row[2])
            left = (time.monotonic() - began) * (count - row[0]) / (row[0] or count)
            pause = min(5.0, max(0.05, 0.8 * left))

    def first_claim(self) -> float:
        """Seconds since 1970 when the first batch began."""
        row = self.database.execute("SELECT extract(epoch FROM min(started_at)) FROM results").fetchone()
        assert row
        return float(row[0])

    def serving(self) -> bool:
        row = self.database.execute("SELECT count(*) FROM workers WHERE state IN ('idle', 'busy')").fetchone()
        return bool(row and row[0])


@contextmanager
def started(models: str, **settings: str) -> Iterator[Bench]:
    """A system with no worker that knows `models` all the same."""
    with tempfile.TemporaryDirectory(prefix="tundish-bench-") as folder:
        given = {
            "TUNDISH_MODELS": models,
            "TUNDISH_DATA_DIR": folder,
            "TUNDISH_PORT": str(free_port()),
            "TUNDISH_MAX_BODY": str(2**28),
        } | settings
        os.environ.update(given)
        try:
            with running(Settings.from_environment(), workers=0) as system:
                url = system.supervisor.environment["TUNDISH_DATABASE_URL"]
                engine = store.engine(url)
                with engine.begin() as connection:
                    served = load_models(models, Path.cwd())
                    store.register(connection, [describe(one) for one in served])
                engine.dispose()
                client = redis.Redis.from_url(system.supervisor.environment["TUNDISH_REDIS_URL"])
                with client, psycopg.connect(url, autocommit=True) as database:
                    _check_durable(database)
                    yield Bench(system, database, client)
        finally:
            for name in given:
                os.environ.pop(name, None)


def _check_durable(database: "psycopg.Connection[Any]") -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        row = database.execute(f"SHOW {name}").fetchone()
        if row is None or row[0] != "on":
            raise RuntimeError(f"{name} is not on: the figure would not count")
