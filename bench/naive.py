"""The naive stack, running: FastAPI in one process, Postgres and Valkey as Tundish gets them."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg

from bench.peers.environment import NAIVE, CannotRun
from bench.peers.stores import postgres, valkey
from local.http import Api, free_port
from local.supervise import TREE

KEY = "a key for benches"
#: Seconds for it to answer.
START = 60.0


@dataclass(frozen=True)
class Naive:
    api: Api
    port: int
    database: "psycopg.Connection[Any]"

    def finished(self, count: int) -> list[str]:
        """The ids of so many finished jobs, made for it."""
        ids = [str(uuid4()) for _ in range(count)]
        with self.database.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO jobs (id, model, input, status, output, finished_at)"
                """ VALUES (%s, 'words', '{"text": "a b c"}', 'succeeded', '{"words": 3}', now())""",
                [(id,) for id in ids],
            )
        self.database.execute("ANALYZE jobs")
        return ids


@contextmanager
def started() -> Iterator[Naive]:
    """Raises CannotRun."""
    python = NAIVE.python()
    with valkey() as socket, postgres() as url:
        port = free_port()
        api = Api(f"http://127.0.0.1:{port}", KEY)
        given = {"BENCH_SOCKET": socket, "BENCH_DATABASE": url, "BENCH_KEY": KEY, "PYTHONPATH": str(TREE)}
        command = [python, "-m", "uvicorn", "bench.peers.naive_app:app", "--port", str(port)]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]
        process = subprocess.Popen(command, cwd=TREE, env={**os.environ, **given})
        try:
            until = time.monotonic() + START
            while api.status("/openapi.json") != 200:
                if process.poll() is not None or time.monotonic() > until:
                    raise CannotRun("its API did not start")
                time.sleep(0.05)
            with psycopg.connect(url, autocommit=True) as database:
                yield Naive(api, port, database)
        finally:
            process.terminate()
            process.wait()
