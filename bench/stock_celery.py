"""Stock Celery on the same machine: one task a job, results kept in Redis."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from celery import Celery

from local.embed import valkey_program
from local.supervise import TREE

app = Celery("stock", broker=os.environ.get("BENCH_BROKER"), backend=os.environ.get("BENCH_BACKEND"))
app.conf.update(worker_prefetch_multiplier=64, task_acks_late=False, worker_send_task_events=False, result_expires=3600)


@app.task(name="noop")
def noop(number: int) -> int:
    return number


@contextmanager
def _valkey() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="tundish-bench-") as folder:
        socket = Path(folder) / "s"
        command = [valkey_program(), "--port", "0", "--unixsocket", str(socket), "--dir", folder, "--appendonly", "yes"]
        process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                time.sleep(0.01)
            yield str(socket)
        finally:
            process.terminate()
            process.wait()


def drain(count: int, pool: str, processes: int) -> float:
    """Jobs a second from the first stored result to the last, of a preloaded queue."""
    with _valkey() as socket:
        broker, backend = f"redis+socket://{socket}?virtual_host=0", f"redis+socket://{socket}?virtual_host=1"
        environment = {**os.environ, "BENCH_BROKER": broker, "BENCH_BACKEND": backend, "PYTHONPATH": str(TREE)}
        loader = "from bench.stock_celery import app, noop\nwith app.producer_pool.acquire(block=True) as producer:\n"
        loader += f"    for number in range({count}): noop.apply_async((number,), producer=producer)\n"
        subprocess.run([sys.executable, "-c", loader], env=environment, check=True)
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "bench.stock_celery", "worker"),
                *("-P", pool, "-c", str(processes), "-l", "ERROR", "-Ofair"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ],
            env={**environment, "C_FORCE_ROOT": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return _rate(redis.Redis(unix_socket_path=socket, db=1), count)
        finally:
            worker.terminate()
            worker.wait()


def _rate(results: redis.Redis, count: int) -> float:
    first = 0
    while not first:
        first = int(results.dbsize())
        began = time.monotonic()
        time.sleep(0.005)
    while int(results.dbsize()) < count:
        time.sleep(0.02)
    return (count - first) / (time.monotonic() - began)
