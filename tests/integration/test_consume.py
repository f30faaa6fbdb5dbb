"""Which queues Celery consumes, changed while it runs against a real Redis."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest
import redis
from celery import Celery

from local.embed import pings, valkey_program
from local.http import free_port
from tests.local import TREE, Local, wait_until
from tundish import queue
from tundish.ids import new_uuid
from tundish.job import Priority
from workers import app

#: A worker without a pipeline: it writes down what it drafts, and follows what it reads.
_WORKER = """
import json, sys, threading
import redis
from tests.models import Echo, Octets
from tests.shelves import NO_ARTIFACTS, alone
from tundish.catalog import Served
from workers import app
from workers.batch import Batcher, Limits, Target
from workers.consume import Consumers
from workers.gpu import Cpu
from workers.intake import Intake
from workers.shelf import Shelf
targets = {name: Target(name, "1") for name in ("echo", "octets")}
shelf = Shelf([Served(Echo), Served(Octets)], Cpu(), NO_ARTIFACTS, alone(), host_budget=lambda: 0)
shelf.fill()
consumers = Consumers(targets.values())
batcher = Batcher(dict.fromkeys(targets.values(), Limits(4, 0.0)))
intake = Intake(batcher, redis.Redis.from_url(sys.argv[1]), consumers, shelf)
def draft():
    while drafts := intake.take(lambda: True, lambda: True):
        with open(sys.argv[2], "a") as file:
            file.write(drafts[0].target.model + "\\n")
def follow():
    for line in sys.stdin:
        consumers.follow([targets[name] for name in json.loads(line)], "pause")
threading.Thread(target=draft, daemon=True).start()
threading.Thread(target=follow, daemon=True).start()
app.heed(lambda **_: intake.close())
sys.exit(not app.run(app.make(sys.argv[1], intake), "consumer"))
"""

DB = 7


class Worker:
    """The process, and what a test does to it."""

    def __init__(self, url: str, taken: Path) -> None:
        self.redis = redis.Redis.from_url(url)
        self.control = Celery(
            broker=url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
        ).control
        self._taken = taken
        taken.touch()
        command = [sys.executable, "-W", "ignore", "-c", _WORKER, url, str(taken)]
        self.process = subprocess.Popen(command, cwd=TREE, stdin=subprocess.PIPE, text=True)

    def send(self, model: str, priority: Priority = Priority.NORMAL) -> str:
        """The name of the list."""
        source = queue.Queue(model, "1", priority)
        queue.send(self.redis, [(source, new_uuid())])
        return source.name

    def follow(self, *models: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(models) + "\n")
        self.process.stdin.flush()

    def taken(self, *models: str) -> bool:
        return self._taken.read_text().split() == list(models)

    def asking(self) -> set[str]:
        """Its connections that are blocked, in a BRPOP."""
        return {each["id"] for each in self.redis.client_list() if each["db"] == str(DB) and "b" in each["flags"]}

    def connections(self) -> set[str]:
        """All of its connections over TCP."""
        ours = {f"{each.laddr.ip}:{each.laddr.port}" for each in psutil.Process(self.process.pid).net_connections()}
        return {each["id"] for each in self.redis.client_list() if each["addr"] in ours}

    def cut(self, connections: Iterable[str]) -> None:
        for id in connections:
            self.redis.client_kill_filter(_id=id)

    def consumed(self) -> set[str]:
        told = self.control.inspect(timeout=5, limit=1).active_queues() or {}
        return {str(each["name"]) for found in told.values() for each in found}


@pytest.fixture
def worker(system: Local, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(f"{system.ps()['valkey']['url']}?db={DB}", tmp_path / "taken")
    try:
        yield worker
    finally:
        worker.process.terminate()
        worker.process.communicate()
        worker.redis.flushdb()
        worker.redis.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Worker]:
    """A worker with a Redis of its own."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen([valkey_program(), *options], stdout=subprocess.DEVNULL) as server:
        url = f"redis://127.0.0.1:{port}/{DB}"
        try:
            wait_until(lambda: pings(url), "Redis answers")
            worker = Worker(url, tmp_path / "taken")
            worker.send("echo")
            wait_until(lambda: worker.taken("echo"), "it serves")
            yield worker
            worker.process.terminate()
            worker.process.communicate()
            worker.redis.close()
        finally:
            server.kill()


def test_a_redis_without_memory_gives_what_it_has_also_after_a_reconnect(alone: Worker) -> None:
    """It would not get any memory otherwise."""
    alone.process.send_signal(signal.SIGSTOP)
    alone.cut(alone.connections())
    alone.send("octets")
    alone.redis.config_set("maxmemory", 1)
    alone.process.send_signal(signal.SIGCONT)
    wait_until(lambda: alone.process.poll() is not None or alone.taken("echo", "octets"), "it goes on")
    assert alone.process.poll() is None


def test_a_redis_that_refuses_to_be_taken_from_for_a_while_ends_no_worker(alone: Worker) -> None:
    before = alone.asking()
    alone.redis.replicaof("127.0.0.1", str(free_port()))
    wait_until(lambda: alone.process.poll() is not None or not before & alone.asking(), "it is refused")
    alone.redis.replicaof("NO", "ONE")
    assert alone.process.poll() is None
    alone.send("echo")
    wait_until(lambda: alone.taken("echo", "echo"), "it goes on")


@pytest.mark.parametrize("broken", [True, False])
def test_a_loop_that_breaks_is_told_from_one_that_is_stopped(broken: bool) -> None:
    celery = SimpleNamespace(Worker=lambda **_: SimpleNamespace(start=lambda: None, exitcode=int(broken)))
    assert app.run(cast(Celery, celery), "consumer") is not broken


def test_what_is_not_followed_waits_in_redis_also_after_a_reconnect(worker: Worker) -> None:
    worker.send("echo")
    wait_until(lambda: worker.taken("echo"), "all is followed at first")
    worker.follow("echo")
    wait_until(lambda: worker.consumed() and not any("octets" in each for each in worker.consumed()), "it is left")
    left = worker.send("octets")
    worker.send("echo")
    wait_until(lambda: worker.taken("echo", "echo"), "the other is still followed")
    worker.cut(worker.asking())
    worker.send("echo")
    wait_until(lambda: worker.taken("echo", "echo", "echo"), "it connected again")
    assert worker.redis.llen(left) == 1
    worker.follow("echo", "octets")
    wait_until(lambda: worker.taken("echo", "echo", "echo", "octets"), "it is followed again")


def test_what_an_operator_took_away_stays_away(worker: Worker) -> None:
    worker.send("echo")
    wait_until(lambda: worker.taken("echo"), "all is followed at first")
    high = queue.Queue("octets", "1", Priority.HIGH).name
    assert worker.control.cancel_consumer(high, reply=True, timeout=10, limit=1)
    # Celery replies before it does so.
    wait_until(lambda: (found := worker.consumed()) and high not in found, "it is taken away")
    worker.follow("echo")
    wait_until(lambda: worker.consumed() and not any("octets" in each for each in worker.consumed()), "it is left")
    worker.follow("echo", "octets")
    wait_until(lambda: any("octets" in each for each in worker.consumed()), "it is followed again")
    worker.send("octets", Priority.HIGH)
    worker.send("octets", Priority.LOW)
    wait_until(lambda: worker.taken("echo", "octets"), "one of the two is taken")
    assert high not in worker.consumed()
    assert worker.control.add_consumer(high, reply=True, timeout=10, limit=1)
    wait_until(lambda: worker.taken("echo", "octets", "octets"), "the operator gave it back")


def test_a_queue_that_an_operator_has_mistyped_ends_no_worker(worker: Worker) -> None:
    worker.send("echo")
    wait_until(lambda: worker.taken("echo"), "it serves")
    mistyped = "tundish:echo@1:high"
    assert worker.control.add_consumer(mistyped, reply=True, timeout=10, limit=1)
    wait_until(lambda: mistyped in worker.consumed(), "it is asked for")
    message = queue.encode(queue.Queue("echo", "1", Priority.HIGH), queue.Message((new_uuid().hex,)))
    worker.redis.lpush(mistyped, message.replace(b"echo@1:0:high", b"echo@1:high"))
    wait_until(lambda: not worker.redis.exists(mistyped), "what lay there is dropped")
    worker.send("echo", Priority.HIGH)
    wait_until(lambda: worker.taken("echo", "echo"), "it serves on")


def test_an_operator_can_stop_a_worker(worker: Worker) -> None:
    worker.send("echo")
    wait_until(lambda: worker.taken("echo"), "it serves")
    worker.control.shutdown()
    assert worker.process.wait(20) == 0
