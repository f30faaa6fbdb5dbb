"""Redis and Postgres that die, forget, fall silent and come back."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal
from uuid import uuid4

import psycopg
import pytest

from tests.chaos.invariants import Observer, outcome
from tests.chaos.load import Load
from tests.chaos.rig import Rig
from tests.local import wait_until

Times = Callable[[int], int]


def test_redis_is_killed_and_wiped_under_load(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    wipes = times(20)
    for _ in range(wipes):
        load.submit(100)
        rig.wipe_redis()
        load.submit(100)  # a submit needs no Redis
        rig.parts["valkey"].start()
    assert outcome("Redis killed and wiped", load, observer, wipes).wrong == []


def test_claims_resume_after_redis_was_cut(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    longest, cuts = 0.0, times(30)
    kinds: list[Literal["reset", "blackhole"]] = ["reset", "blackhole"]
    pids = [worker.pid for worker in rig.workers]
    for number in range(cuts):
        rig.redis.cut(kinds[number % 2])
        [id] = load.submit(1)
        load.submit(50)
        rig.redis.heal()
        healed = time.monotonic()
        rig.executions(load.jobs[id])
        longest = max(longest, time.monotonic() - healed)
    assert [worker.pid for worker in rig.workers] == pids
    note = f"claims resumed in {longest:.1f} s at most"
    assert outcome("Redis reset and blackholed", load, observer, cuts, note=note).wrong == []
    assert longest < 15


def test_postgres_crashes_while_jobs_are_submitted(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    crashes = times(20)
    with load.running():
        for _ in range(crashes):
            load.wait_for_more(50)
            rig.parts["postgres"].kill(signal.SIGQUIT)
    assert outcome("Postgres immediate stop", load, observer, crashes).wrong == []


def test_postgres_stalls_and_nobody_hangs(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    stall, callers = 6.0 + times(60), 40
    ids = load.submit(50)  # the connections are warm
    until = time.monotonic() + stall

    def ask(caller: int) -> float:
        """The seconds of the longest answer to a caller who does not give up."""
        longest = 0.0
        while time.monotonic() < until:
            began = time.monotonic()
            key = {"Idempotency-Key": uuid4().hex} if caller % 4 == 0 else {}
            job = {"model": "worked", "input": {"token": "stalled"}}
            if caller % 4 == 3:
                answer = rig.client.get(f"/v1/jobs/{ids[caller]}")
            else:
                answer = rig.client.post("/v1/jobs", json=job, headers=key)
            longest = max(longest, time.monotonic() - began)
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
            assert rig.client.get("/healthz").status_code == 200
        return longest

    with rig.parts["postgres"].frozen(), ThreadPoolExecutor(callers) as pool:
        longest = max(pool.map(ask, range(callers)))
    load.submit(50)
    note = f"{stall:.0f} s, the longest answer took {longest:.1f} s"
    assert outcome("Postgres stalls", load, observer, 1, note=note).wrong == []
    assert longest < 10


def test_a_transaction_held_open_does_not_slow_the_claims(
    rig: Rig, load: Load, observer: Observer, times: Times
) -> None:
    def drained() -> float:
        """Seconds to run 500 jobs that were submitted at once."""
        tokens = [uuid4().hex for _ in range(500)]
        inputs = [{"token": token} for token in tokens]
        began = time.monotonic()
        data = rig.client.post("/v1/jobs:batch", json={"model": "worked", "inputs": inputs}).json()["data"]
        for each, token in zip(data, tokens, strict=True):
            load.acknowledged(each["id"], token)
        wait_until(lambda: rig.client.get(f"/v1/jobs/{data[-1]['id']}").json()["finished_at"], "all ran", 60)
        return time.monotonic() - began

    drained()
    base = min(drained() for _ in range(3))
    hold, held = times(180), []
    with psycopg.connect(rig.database_url) as holder:
        holder.execute("SELECT count(*) FROM jobs")
        holder.execute("SELECT txid_current()")
        until = time.monotonic() + hold
        while time.monotonic() < until:
            held.append(drained())
    ratio = sorted(held[-5:])[len(held[-5:]) // 2] / base
    note = f"for {hold} s: {ratio:.1f} times the base after {len(held) * 500} jobs"
    assert outcome("a transaction held open", load, observer, 1, note=note).wrong == []
    assert ratio < 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_the_disk_of_the_blobs_is_full(rig: Rig, load: Load, observer: Observer) -> None:
    folder = str(rig.place.root / "blobs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        large = {"model": "worked", "input": {"token": "x" * 600_000}}
        answers = [rig.client.post("/v1/jobs", json=large) for _ in range(4)]
        refused = answers[-1]
        assert refused.status_code == 503
        assert refused.json()["code"] == "unavailable"
        assert refused.headers["retry-after"]
        load.submit(300)  # small inputs are taken; their results do not fit
        subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
        assert outcome("disk of the blobs is full", load, observer, 1).wrong == []
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
