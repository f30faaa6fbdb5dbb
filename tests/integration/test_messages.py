"""Our hand-made messages are Celery's: a stock worker, with a stock task of our name, takes them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from celery import Celery

from tests.local import TREE, Local, wait_until
from tundish import queue
from tundish.ids import new_uuid
from tundish.job import Priority

_APP = """
import json, sys
from celery import Celery
app = Celery(broker=sys.argv[1])
app.conf.update(task_default_queue=sys.argv[2], broker_transport_options={"priority_steps": [0]})
@app.task(name="tundish.run")
def run(ids, alone):
    with open(sys.argv[3], "a") as file:
        file.write(json.dumps([ids, alone]) + "\\n")
app.Worker(pool="solo", quiet=True, loglevel="ERROR", without_gossip=True, without_mingle=True).start()
"""


def test_a_stock_worker_takes_our_messages(system: Local, tmp_path: Path) -> None:
    url = system.ps()["valkey"]["url"]
    source = queue.Queue("stock", "1", Priority.NORMAL)
    jobs = [(source, new_uuid()) for _ in range(3)]
    queue.send(redis.Redis.from_url(url), jobs)
    queue.send(redis.Redis.from_url(url), jobs[:1], alone=True)
    taken = tmp_path / "taken"
    command = [sys.executable, "-W", "ignore", "-c", _APP, url.replace("unix://", "redis+socket://"), source.name]
    worker = subprocess.Popen([*command, str(taken)], cwd=TREE)
    try:
        wait_until(lambda: taken.exists() and len(taken.read_text().splitlines()) == 2, "both messages were taken")
        assert [json.loads(line) for line in taken.read_text().splitlines()] == [
            [[id.hex for _, id in jobs], False],
            [[jobs[0][1].hex], True],
        ]
    finally:
        worker.terminate()
        worker.wait()


@pytest.mark.parametrize("what", "stats active_queues registered scheduled active reserved revoked conf".split())
def test_operators_see_what_flower_asks_for(system: Local, what: str) -> None:
    control = Celery(broker=system.ps()["valkey"]["url"].replace("unix://", "redis+socket://")).control
    told = getattr(control.inspect(timeout=10, limit=1), what)()
    assert [name.partition("-")[0] for name in told] == ["default"]


def test_operators_can_take_a_queue_from_a_worker_and_give_it_back(system: Local) -> None:
    broker = system.ps()["valkey"]["url"].replace("unix://", "redis+socket://")
    control = Celery(broker=broker).control
    name = queue.Queue("echo", "1", Priority.HIGH).name
    with system.client("a key for tests") as api:
        assert control.cancel_consumer(name, reply=True, timeout=10, limit=1)
        job = {"model": "echo", "input": {"value": 1}, "priority": "high"}
        waiting = api.post("/v1/jobs", json=job).json()["id"]
        other = {"model": "echo", "input": {"value": 2}, "priority": "low"}
        assert api.post("/v1/jobs", json=other, headers={"Prefer": "wait=30"}).status_code == 200
        assert api.get(f"/v1/jobs/{waiting}").json()["status"] == "queued"
        assert control.add_consumer(name, reply=True, timeout=10, limit=1)
        assert api.get(f"/v1/jobs/{waiting}?wait=30").json()["status"] == "succeeded"


def test_a_message_that_is_not_ours_harms_nobody(system: Local) -> None:
    client = redis.Redis.from_url(system.ps()["valkey"]["url"])
    name = queue.Queue("echo", "1", Priority.NORMAL).name
    good = json.loads(queue.encode(queue.Queue("echo", "1", Priority.NORMAL), queue.Message((new_uuid().hex,))))
    for body in ("bm9uc2Vuc2U=", "W1tdLHt9LHt9XQ=="):  # nonsense, and [[],{},{}]
        client.lpush(name, json.dumps(good | {"body": body}))
    client.lpush(name, json.dumps(good | {"headers": good["headers"] | {"task": "unknown"}}))
    wait_until(lambda: client.llen(name) == 0, "the messages were taken")
    first = queue.encode(queue.Queue("echo", "1", Priority.NORMAL), queue.Message((new_uuid().hex,)))
    strange = json.dumps(good | {"body": "bm9uc2Vuc2U="}).encode()
    client.lpush(name, first, strange, b"{}", b"no json")  # all but the first are fetched in bulk
    wait_until(lambda: client.llen(name) == 0, "the messages were taken")
    with system.client("a key for tests") as api:
        answer = api.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}}, headers={"Prefer": "wait=30"})
        assert answer.status_code == 200
    assert system.ps()["worker"]["state"] == "running"
