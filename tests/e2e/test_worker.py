"""A worker by itself: its device goes away, it is told to stop at any moment, and what it had taken is back."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from local.http import free_port
from tests.conftest import KEY
from tests.local import TREE, Local, ended, wait_until
from tests.shelf_models import Lonely
from tundish.ids import from_text
from tundish.job import Priority
from tundish.queue import Queue
from workers import exits
from workers.intake import unpack


@dataclass
class Fragile:
    """A worker whose device is gone while there is a file, in a folder of its own; and what is known of it."""

    system: Local
    folder: Path

    @contextmanager
    def started(self, wait: float = 3600, **settings: str) -> Iterator["subprocess.Popen[str]"]:
        """The process; in quarantine it looks again after so many seconds."""
        models, folder = "tests.shelf_models:Lonely", str(self.folder)
        given = self.system.beside(TUNDISH_MODELS=models, SHELF=folder, WAIT=str(wait), **settings)
        command = [sys.executable, "-m", "tests.shelf_models"]
        with subprocess.Popen(command, cwd=TREE, env=given, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def rows(self, pid: int) -> list[tuple[str, list[str], datetime]]:
        """State, models and last heart-beat of each worker that this process was."""
        with psycopg.connect(self.system.ps()["postgres"]["url"]) as connection:
            found = connection.execute(
                "SELECT state, models, seen_at FROM workers WHERE pid = %s AND host = %s", [pid, os.uname().nodename]
            )
            return list(found.fetchall())

    def states(self, pid: int) -> list[str]:
        return [state for state, _, _ in self.rows(pid)]

    def claimed(self, ids: Sequence[str]) -> int:
        """How many of these jobs a worker has, or had."""
        return sum(many for attempt, many in self.attempts(ids).items() if attempt)

    def attempts(self, ids: Sequence[str]) -> Counter[int]:
        """How often its jobs were claimed, and how many so often."""
        with psycopg.connect(self.system.ps()["postgres"]["url"]) as connection:
            given = [[from_text("job", id) for id in ids]]
            found = connection.execute("SELECT attempt FROM jobs WHERE id = ANY(%s)", given)
            return Counter(attempt for (attempt,) in found)

    def began(self) -> set[int]:
        """The processes whose batches have begun."""
        ledger = self.folder / "began"
        return {int(line.split()[1]) for line in (ledger.read_text() if ledger.exists() else "").splitlines()}

    def queued(self) -> list[str]:
        """The jobs whose messages wait in Redis, the next one first."""
        with redis.Redis.from_url(self.system.ps()["valkey"]["url"]) as broker:
            messages = broker.lrange(Queue("lonely", "1", Priority.NORMAL).name, 0, -1)
        return [id for each in reversed(messages) for id in unpack(each).ids]

    def warm_up(self, client: httpx.Client) -> None:
        """Let the worker know that a batch takes no time."""
        folder = self.folder / "warm"
        folder.mkdir()
        (folder / "open").touch()
        job = client.post("/v1/jobs", json={"model": "lonely", "input": {"folder": str(folder), "name": "warm"}})
        assert ended(client, job.json()["id"])["status"] == "succeeded"

    def submit_many(self, client: httpx.Client, count: int) -> list[str]:
        """In one call."""
        gates = [{"folder": str(self.folder), "name": str(number)} for number in range(count)]
        told = client.post("/v1/jobs:batch", json={"model": "lonely", "inputs": gates}).json()["data"]
        return [each["id"] for each in told]

    def submit(self, client: httpx.Client, name: str) -> str:
        gate = {"model": "lonely", "input": {"folder": str(self.folder), "name": name}}
        id: str = client.post("/v1/jobs", json=gate).json()["id"]
        return id


@pytest.fixture
def fragile(system: Local, tmp_path: Path) -> Fragile:
    return Fragile(system, tmp_path)


def test_a_device_that_goes_away_takes_no_job_along(system: Local, fragile: Fragile) -> None:
    with system.client(KEY) as client:
        with fragile.started() as first:
            wait_until(lambda: client.get("/v1/models/lonely").status_code == 200, "the model is known")
            job = fragile.submit(client, "job")
            wait_until((fragile.folder / "began").exists, "predict began")
            (fragile.folder / "gone").touch()
            wait_until(lambda: fragile.states(first.pid) == ["lost"], "the worker says so", 5)
            (fragile.folder / "open").touch()  # the batch comes back, from a device of which nothing may be trusted
            _, said = first.communicate(timeout=20)
        assert first.returncode == exits.LOST, said
        assert "the device cpu is gone: told to" in said
        assert client.get(f"/v1/jobs/{job}").json()["status"] == "queued"

        with fragile.started(wait=0.01) as second:  # it looks again and again, and is one worker all the time
            assert second.stderr
            for _ in range(3):
                assert second.stderr.readline() == (
                    "worker: the device cpu cannot be used: told to; see TUNDISH_DEVICE\n"
                )
                wait_until(lambda: fragile.states(second.pid) == ["lost"], "the worker says so")
            (fragile.folder / "gone").unlink()
            done = ended(client, job)
            assert fragile.states(second.pid) in (["idle"], ["busy"])
        assert (done["status"], done["attempt"]) == ("succeeded", 2)


def test_a_worker_without_a_device_is_one_lost_worker_until_it_is_told_to_stop(system: Local, fragile: Fragile) -> None:
    (fragile.folder / "gone").touch()
    with system.client(KEY) as client, fragile.started() as worker:
        [[_, models, first]] = wait_until(lambda: fragile.rows(worker.pid) or None, "it says that it is there")
        assert models == ["lonely@1"]
        job = fragile.submit(client, "waits")
        wait_until(lambda: (fragile.rows(worker.pid)[0][2] - first).total_seconds() > 2, "its heart beats")
        assert fragile.states(worker.pid) == ["lost"]
        shown = [each for each in client.get("/v1/workers").json()["data"] if each["pid"] == worker.pid]
        assert [(each["state"], each["memory_total"]) for each in shown] == [("lost", None)]
        wait_until(
            lambda: [each["workers"] for each in client.get("/v1/models/lonely").json()["versions"]] == [[]],
            "it does not count as serving, nor the worker of the test before",
        )
        waiting = client.get(f"/v1/jobs/{job}").json()
        assert (waiting["status"], waiting["attempt"]) == ("queued", 0)
        worker.terminate()
        worker.communicate(timeout=5)
        assert worker.returncode == 0
        assert fragile.states(worker.pid) == ["stopped"]
        assert client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "canceled"


def test_no_model_is_unloaded_under_a_batch_that_runs_past_the_grace_time(system: Local, fragile: Fragile) -> None:
    with system.client(KEY) as client:
        with fragile.started(TUNDISH_GRACE="0.1") as worker:
            wait_until(lambda: fragile.states(worker.pid) == ["idle"], "it serves")
            job = fragile.submit(client, "job")
            wait_until((fragile.folder / "began").exists, "predict began")
            worker.terminate()
            worker.communicate(timeout=20)
        assert worker.returncode == 0
        assert not (fragile.folder / "unloaded").exists()
        assert client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "canceled"
        with fragile.started() as worker:
            wait_until(lambda: fragile.states(worker.pid) == ["idle"], "it serves")
            worker.terminate()
            worker.communicate(timeout=20)
        assert worker.returncode == 0
        assert (fragile.folder / "unloaded").exists()


def test_what_one_worker_does_not_start_soon_is_there_for_the_others(system: Local, fragile: Fragile) -> None:
    """One message carries the jobs of two batches, and two workers are idle."""
    with system.client(KEY) as client, fragile.started() as first, fragile.started() as second:
        wait_until(lambda: fragile.states(first.pid) == fragile.states(second.pid) == ["idle"], "they serve")
        jobs = fragile.submit_many(client, 2 * Lonely.max_batch)
        wait_until(lambda: fragile.began() == {first.pid, second.pid}, "both batches run")
        (fragile.folder / "open").touch()
        assert {ended(client, id)["status"] for id in jobs} == {"succeeded"}
        assert fragile.attempts(jobs) == {1: len(jobs)}


def test_what_was_fetched_or_claimed_behind_a_batch_that_takes_long_is_back(system: Local, fragile: Fragile) -> None:
    with system.client(KEY) as client, fragile.started() as worker:
        wait_until(lambda: fragile.states(worker.pid) == ["idle"], "it serves")
        fragile.warm_up(client)
        jobs = fragile.submit_many(client, 40)
        others = {hex_of(id) for id in jobs[Lonely.max_batch :]}
        wait_until((fragile.folder / "began").exists, "one batch runs")
        wait_until(lambda: fragile.claimed(jobs) > Lonely.max_batch, "another is claimed")
        wait_until(lambda: set(fragile.queued()) == others, "all but that batch are back")
        (fragile.folder / "open").touch()
        assert {ended(client, id)["status"] for id in jobs} == {"succeeded"}


def test_what_a_stopped_worker_had_fetched_or_claimed_is_back_in_its_place(system: Local, fragile: Fragile) -> None:
    with system.client(KEY) as client:
        with fragile.started(TUNDISH_GRACE="0.1") as worker:
            wait_until(lambda: fragile.states(worker.pid) == ["idle"], "it serves")
            fragile.warm_up(client)
            jobs = fragile.submit_many(client, 500)
            wait_until((fragile.folder / "began").exists, "one batch runs")
            wait_until(lambda: fragile.claimed(jobs) > Lonely.max_batch, "another is claimed")
            worker.terminate()
            worker.communicate(timeout=20)
        assert worker.returncode == 0
        # In front is what did not start; what did may be why the worker had to be stopped.
        order = jobs[Lonely.max_batch :] + jobs[: Lonely.max_batch]
        assert fragile.queued() == [hex_of(id) for id in order]
        for id in jobs:
            client.post(f"/v1/jobs/{id}/cancel")


def test_a_worker_that_is_stopped_before_celery_has_started_ends_in_good_order(fragile: Fragile) -> None:
    (fragile.folder / "stop").touch()
    with fragile.started() as worker:
        _, said = worker.communicate(timeout=20)
    assert worker.returncode == 0, said
    assert fragile.states(worker.pid) == ["stopped"]
    assert (fragile.folder / "unloaded").exists()


def test_a_worker_that_is_stopped_while_it_loads_ends_at_once(fragile: Fragile) -> None:
    """Not by the system, which keeps a signal that nobody handles from the first process of a container."""
    (fragile.folder / "heavy").touch()
    with fragile.started() as worker:
        wait_until((fragile.folder / "loads").exists, "it loads")
        worker.terminate()
        worker.communicate(timeout=5)
    assert worker.returncode == 0
    assert fragile.rows(worker.pid) == []


def test_a_worker_whose_device_is_poisoned_while_it_loads_ends_by_itself(fragile: Fragile) -> None:
    (fragile.folder / "poisonous").touch()
    with fragile.started() as worker:
        _, said = worker.communicate(timeout=20)
    assert worker.returncode == exits.BROKEN, said


def test_a_worker_without_a_device_stays_in_quarantine_while_postgres_is_away(fragile: Fragile) -> None:
    (fragile.folder / "gone").touch()
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    with fragile.started(wait=1.0, TUNDISH_DATABASE_URL=away) as worker:
        assert worker.stderr
        looks = (line for line in worker.stderr if "cannot be used" in line)
        assert [line.partition(":")[0] for line in (next(looks), next(looks))] == ["worker"] * 2
        assert worker.poll() is None
    with fragile.started(TUNDISH_DATABASE_URL=away) as worker:
        assert worker.stderr
        assert any("does not know yet" in line for line in worker.stderr)
        worker.terminate()
        worker.communicate(timeout=20)
    assert worker.returncode == 0


def hex_of(id: str) -> str:
    found = from_text("job", id)
    assert found
    return found.hex
