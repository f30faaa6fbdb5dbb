"""Drains of the peers: jobs a second from the first stored result to the last, of a preloaded queue."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import redis

from bench.peers.environment import BATCHES, CELERY, RAY, CannotRun, Environment
from bench.peers.stores import valkey
from local.supervise import TREE

#: Seconds for the first result, and between two.
PATIENCE = 90.0


def celery(count: int, pool: str, processes: int) -> float:
    """Stock Celery."""
    return _drain(CELERY, "bench.peers.celery_app", ["load", str(count)], count, worker_words(pool, processes))


def batches(count: int, pool: str, processes: int) -> float:
    """celery-batches."""
    words = worker_words(pool, processes, "bench.peers.batches_app")
    return _drain(BATCHES, "bench.peers.batches_app", [str(count)], count, words)


def ray(count: int) -> float:
    """Ray Serve's task consumer."""
    return _drain(RAY, "bench.peers.ray_app", ["load", str(count)], count, ["-m", "bench.peers.ray_app", "consume"])


def worker_words(pool: str, processes: int, app: str = "bench.peers.celery_app") -> list[str]:
    """What Python runs as a Celery worker with its best settings."""
    words = ["-m", "celery", "-A", app, "worker", "-P", pool, "-c", str(processes), "-l", "ERROR"]
    return [*words, "--without-gossip", "--without-mingle", "--without-heartbeat"]


def environment(socket: str) -> dict[str, str]:
    return {
        **os.environ,
        "BENCH_SOCKET": socket,
        "PYTHONPATH": str(TREE),
        "C_FORCE_ROOT": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@contextmanager
def consuming(command: Sequence[str], environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A peer's consumer, which ends at a signal, or at the end of its standard input."""
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=TREE,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        assert process.stdin
        process.stdin.close()
        if "consume" not in command:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _drain(peer: Environment, loader: str, load: list[str], count: int, consume: list[str]) -> float:
    python = peer.python()
    with valkey() as socket:
        given = environment(socket)
        ran = subprocess.run([python, "-m", loader, *load], env=given, cwd=TREE, capture_output=True, text=True)
        if ran.returncode != 0:
            raise CannotRun(f"could not queue its jobs: {(ran.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
        with consuming([python, *consume], given) as process, redis.Redis(unix_socket_path=socket, db=1) as results:
            return _rate(results, count, process)


def _rate(results: redis.Redis, count: int, process: "subprocess.Popen[bytes]") -> float:
    first = seen = 0
    began = moved = time.monotonic()
    while seen < count:
        now = int(results.dbsize())
        if now > seen:
            seen, moved = now, time.monotonic()
        if seen and not first:
            first, began = seen, moved
        if process.poll() is not None or time.monotonic() - moved > PATIENCE:
            raise CannotRun(f"stored {seen} of {count} results, and then none")
        time.sleep(0.005)
    return (seen - first) / (moved - began)
