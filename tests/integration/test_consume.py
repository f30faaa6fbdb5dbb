"""Which queues Celery consumes, changed while it runs against a real Redis."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from tests.local import TREE, Local, wait_until
from tundish import queue
from tundish.ids import new_uuid
from tundish.job import Priority

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
app.run(app.make(sys.argv[1], intake), "consumer")
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


def test_what_is_not_followed_waits_in_redis_also_after_a_reconnect(worker: Worker) -> None:
    worker.send("echo")
    wait_until(lambda: worker.taken("echo"), "all is followed at first")
    worker.follow("echo")
    wait_until(lambda: worker.consumed() and not any("octets" in each for each in worker.consumed()), "it is left")
    left = worker.send("octets")
    worker.send("echo")
    wait_until(lambda: worker.taken("echo", "echo"), "the other is still followed")
    for client in worker.redis.client_list():
        if client["db"] == str(DB) and "b" in client["flags"]:  # it is blocked, in its BRPOP
            worker.redis.client_kill_filter(_id=client["id"])
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
