"""Workers that die, freeze, or are sent the same message again."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import httpx
import redis

from tests.chaos.invariants import Observer, check
from tests.chaos.load import Load
from tests.chaos.rig import Rig
from tests.local import wait_until
from tundish import queue
from tundish.ids import from_text
from tundish.job import Priority

Times = Callable[[int], int]


def test_workers_are_killed_under_load(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    chance = random.Random(load.seed)
    kills = times(50)
    for _ in range(kills):
        before = len(rig.executed.lines())
        load.submit(100)
        rig.wait_for_executions(before)
        chance.choice(rig.workers).kill()
    check("worker SIGKILL", load, observer, kills)


def test_a_job_that_kills_its_process_is_quarantined_alone(
    rig: Rig, load: Load, observer: Observer, times: Times
) -> None:
    killers = times(10)
    for _ in range(killers):
        load.submit(1, do="die")
        load.submit(20)
    row = check("a job kills its process", load, observer, killers, failed=killers, within=300)
    assert row.extra > 0


def test_a_frozen_worker_writes_nothing_when_it_wakes(
    rig: Rig, load: Load, observer: Observer, times: Times, tmp_path: Path
) -> None:
    zombies = times(100)
    for number in range(zombies):
        gate = tmp_path / str(number)
        [id] = load.submit(1, do=str(gate))
        pid = rig.executions(load.jobs[id])[0]
        [zombie] = [worker for worker in rig.workers if worker.pid == pid]
        late = rig.refused(zombie)
        os.kill(pid, signal.SIGSTOP)
        gate.touch()
        try:
            job = rig.client.get(f"/v1/jobs/{id}?wait=30").json()
            assert (job["status"], job["attempt"]) == ("succeeded", 2)
            result = rig.client.get(f"/v1/jobs/{id}/result", follow_redirects=True).content
        finally:
            os.kill(pid, signal.SIGCONT)
        rig.wait_for_refusal(zombie, more_than=late)
        assert rig.client.get(f"/v1/jobs/{id}/result", follow_redirects=True).content == result
        assert rig.client.get(f"/v1/jobs/{id}").json() == job
    check("zombie: SIGSTOP past the lease", load, observer, zombies)


def test_messages_that_come_again_run_nothing_again(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    ids = load.submit(times(5000))
    client = redis.Redis.from_url(rig.redis_url)
    target = queue.Queue("worked", "1", Priority.NORMAL)
    found = [from_text("job", id) for id in ids]
    jobs = [(target, id) for id in found if isinstance(id, UUID)]
    assert len(jobs) == len(ids)
    for _ in range(5):
        queue.send(client, jobs)
    row = check("each message 5 times more", load, observer, 5 * len(jobs))
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
    row = check("worker SIGTERM", load, observer, stops)
    assert row.extra == 0


def test_the_api_is_killed_under_load(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    kills = times(20)
    with load.running():
        for _ in range(kills):
            load.wait_for_more(50)
            rig.parts["api"].kill()
    wait_until(rig.ready, "the API is ready", 60)
    check("API SIGKILL", load, observer, kills)


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
        load.jobs[answer.json()["id"]] = token
        rig.accepted.write(f"{answer.json()['id']} {token}")
        assert len(rig.client.get(f"/v1/jobs?metadata.token={token}").json()["data"]) == 1
    row = check("answer cut after the commit", load, observer, cuts)
    assert row.extra == 0


def test_two_interrupts_end_a_worker_at_once(
    rig: Rig, load: Load, observer: Observer, times: Times, tmp_path: Path
) -> None:
    ends = times(10)
    for number in range(ends):
        gate = tmp_path / str(number)
        [id] = load.submit(1, do=str(gate))
        pid = rig.executions(load.jobs[id])[0]
        [worker] = [worker for worker in rig.workers if worker.pid == pid]
        process, began = worker.process, time.monotonic()
        os.kill(pid, signal.SIGINT)
        rig.wait_for_line(worker, "the running batch may end")
        os.kill(pid, signal.SIGINT)
        process.wait(5)
        assert time.monotonic() - began < 5
        gate.touch()
    check("worker SIGINT twice", load, observer, ends)
