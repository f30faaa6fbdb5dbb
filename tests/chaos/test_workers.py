"""Workers that die, freeze, or are sent the same message again."""

import base64
import json
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import redis

from tests.chaos.invariants import Observer, outcome
from tests.chaos.load import Load
from tests.chaos.rig import Part, Rig
from tests.local import wait_until
from tundish import queue
from tundish.ids import from_text
from tundish.job import Priority

Times = Callable[[int], int]


def gated(rig: Rig, load: Load, gate: Path) -> tuple[str, Part, Path]:
    """A job that runs until the file `gate` is there, and the worker that runs it."""
    id = load.one(do=str(gate))
    pid = rig.executions(load.jobs[id])[0]
    [worker] = [worker for worker in rig.workers if worker.pid == pid]
    return id, worker, gate


def test_workers_are_killed_under_load(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    chance = random.Random(load.seed)
    kills = times(50)
    for _ in range(kills):
        before = len(rig.executed.lines())
        load.submit(100)
        rig.wait_for_executions(before)
        chance.choice(rig.workers).kill()
    assert outcome("worker SIGKILL", load, observer, kills).wrong == []


def test_a_job_that_kills_its_process_is_quarantined_alone(load: Load, observer: Observer, times: Times) -> None:
    killers = max(3, times(10))  # fewer do not meet each other's neighbours
    for _ in range(killers):
        load.submit(1, do="die")
        load.submit(20)
    row = outcome("a job kills its process", load, observer, killers, failed=killers, within=300)
    assert row.wrong == []
    assert row.extra > 0


def test_a_frozen_worker_writes_nothing_when_it_wakes(
    rig: Rig, load: Load, observer: Observer, times: Times, tmp_path: Path
) -> None:
    zombies = times(100)
    for number in range(zombies):
        id, zombie, gate = gated(rig, load, tmp_path / str(number))
        late = rig.refused(zombie)
        os.kill(zombie.pid, signal.SIGSTOP)
        gate.touch()
        try:
            job = rig.client.get(f"/v1/jobs/{id}?wait=30").json()
            assert (job["status"], job["attempt"]) == ("succeeded", 2)
            result = rig.client.get(f"/v1/jobs/{id}/result", follow_redirects=True).content
        finally:
            os.kill(zombie.pid, signal.SIGCONT)
        rig.wait_for_refusal(zombie, more_than=late)
        assert rig.client.get(f"/v1/jobs/{id}/result", follow_redirects=True).content == result
        assert rig.client.get(f"/v1/jobs/{id}").json() == job
    assert outcome("zombie: SIGSTOP past the lease", load, observer, zombies).wrong == []


def test_messages_that_come_again_run_nothing_again(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    ids = load.submit(times(5000))
    client = redis.Redis.from_url(rig.redis_url)
    target = queue.Queue("worked", "1", Priority.NORMAL)
    found = [from_text("job", id) for id in ids]
    jobs = [(target, id) for id in found if isinstance(id, UUID)]
    assert len(jobs) == len(ids)
    for _ in range(5):
        queue.send(client, jobs)
    row = outcome("each message 5 times more", load, observer, 5 * len(jobs))
    assert row.wrong == []
    wait_until(lambda: client.llen(target.name) == 0, "all messages were taken")
    assert row.extra == 0


def test_a_stop_in_good_order_loses_and_charges_nothing(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    stops = times(20)
    for number in range(stops):
        before = len(rig.executed.lines())
        load.submit(50)
        rig.wait_for_executions(before)
        worker = rig.workers[number % 2]
        began = time.monotonic()
        worker.kill(signal.SIGTERM)
        assert time.monotonic() - began < 10
    row = outcome("worker SIGTERM", load, observer, stops)
    assert row.wrong == []
    assert row.extra == 0


def test_a_long_batch_holds_up_nobody(rig: Rig, load: Load, observer: Observer, times: Times, tmp_path: Path) -> None:
    long, longest = times(10), 0.0
    for number in range(long):
        load.submit(20)
        _, _, gate = gated(rig, load, tmp_path / str(number))
        began = time.monotonic()
        for id in load.submit(100):
            rig.wait_for_end(id, 30)
        longest = max(longest, time.monotonic() - began)
        gate.touch()
    row = outcome("a long batch", load, observer, long, note=f"100 others ended in {longest:.1f} s at most")
    assert row.wrong == []
    assert row.extra == 0


def test_a_backlog_that_is_merely_long_is_not_sent_again(
    rig: Rig, load: Load, observer: Observer, times: Times
) -> None:
    for worker in rig.workers:
        worker.down = True
        worker.kill()
    ids = load.submit(times(5000))
    # Two turns of the sweep, once the last message is older than what may still be on its way.
    with psycopg.connect(rig.database_url, autocommit=True) as database:
        aged = "SELECT max(sent_at) < now() - interval '16 s' FROM jobs WHERE status = 0"
        wait_until(lambda: (row := database.execute(aged).fetchone()) and row[0], "the backlog is old", 60)
    messages = redis.Redis.from_url(rig.redis_url).lrange(queue.Queue("worked", "1", Priority.NORMAL).name, 0, -1)
    arguments = [json.loads(base64.b64decode(json.loads(each)["body"]))[0] for each in messages]
    sent = [id for each in arguments for id in queue.decode(each).ids]
    assert len(sent) == len(set(sent)) == len(ids)
    for worker in rig.workers:
        worker.start()
    row = outcome("a long backlog", load, observer, len(ids))
    assert row.wrong == []
    assert row.extra == 0


def test_the_api_is_killed_under_load(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    kills = times(20)
    with load.running():
        for _ in range(kills):
            load.wait_for_more(50)
            rig.parts["api"].kill()
    wait_until(rig.ready, "the API is ready", 60)
    assert outcome("API SIGKILL", load, observer, kills).wrong == []


def test_an_answer_cut_after_the_commit_makes_no_second_job(
    rig: Rig, load: Load, observer: Observer, times: Times
) -> None:
    cuts = times(100)
    for _ in range(cuts):
        rig.http.cut("no answer")
        token = os.urandom(8).hex()
        job = {"model": "worked", "input": {"token": token}, "metadata": {"token": token}}
        for _ in range(2):
            try:
                rig.cut_client.post("/v1/jobs", json=job, headers={"Idempotency-Key": token})
                raise AssertionError("the answer came through")
            except httpx.TransportError:
                pass
        rig.http.heal()
        answer = rig.cut_client.post("/v1/jobs", json=job, headers={"Idempotency-Key": token})
        assert answer.headers["idempotency-replayed"] == "true"
        load.acknowledged(answer.json()["id"], token)
        assert len(rig.client.get(f"/v1/jobs?metadata.token={token}").json()["data"]) == 1
    row = outcome("answer cut after the commit", load, observer, cuts)
    assert row.wrong == []
    assert row.extra == 0


def test_fifty_at_once_with_one_key_make_one_job(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    rounds = times(50)
    with ThreadPoolExecutor(50) as pool:
        for _ in range(rounds):
            token = os.urandom(16).hex()
            job = {"model": "worked", "input": {"token": token}, "metadata": {"token": token}}
            sent = [
                pool.submit(rig.client.post, "/v1/jobs", json=job, headers={"Idempotency-Key": token})
                for _ in range(50)
            ]
            answers = [each.result() for each in sent]
            assert {answer.status_code for answer in answers} == {202}
            [id] = {answer.json()["id"] for answer in answers}
            load.acknowledged(id, token)
            other = rig.client.post("/v1/jobs", json={**job, "priority": "low"}, headers={"Idempotency-Key": token})
            assert other.status_code == 422
            assert len(rig.client.get(f"/v1/jobs?metadata.token={token}").json()["data"]) == 1
    row = outcome("50 submits of one key", load, observer, 50 * rounds)
    assert row.wrong == []
    assert row.extra == 0


def test_two_interrupts_end_a_worker_at_once(
    rig: Rig, load: Load, observer: Observer, times: Times, tmp_path: Path
) -> None:
    ends = times(10)
    for number in range(ends):
        _, worker, gate = gated(rig, load, tmp_path / str(number))
        process, began = worker.process, time.monotonic()
        process.send_signal(signal.SIGINT)
        rig.wait_for_line(worker, "the running batch may end")
        process.send_signal(signal.SIGINT)
        process.wait(5)
        assert time.monotonic() - began < 5
        gate.touch()
    assert outcome("worker SIGINT twice", load, observer, ends).wrong == []
