"""Many models on one device, a worker that leaks, and a device that goes away."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from celery import Celery

from local.http import free_port
from tests.conftest import KEY
from tests.local import TREE, Local, ended, wait_until
from tests.shelf_models import Leaking, Lonely
from tundish.ids import from_text
from tundish.job import Priority
from tundish.queue import Queue
from workers import exits
from workers.intake import unpack

MODELS = "tests.shelf_models:One,Two,Three,Large,Broken,Leaking"
SHARED = "One", "Two", "Three", "Large"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A worker with memory for two models."""
    folder = tmp_path_factory.mktemp("shelf")
    settings = {
        "TUNDISH_MODELS": MODELS,
        "TUNDISH_DEVICE_MEMORY": "2000",
        "TUNDISH_MAX_RSS": str(Leaking.many * Leaking.piece),
        "SHELF": str(folder),
    }
    local = Local(folder / "data", settings)
    with local.running():
        yield local


@pytest.fixture
def client(local: Local) -> Iterator[httpx.Client]:
    with local.client() as client:
        yield client


def submit(client: httpx.Client, model: str, count: int = 1) -> list[str]:
    inputs = [{"value": number} for number in range(count)]
    data = client.post("/v1/jobs:batch", json={"model": model, "inputs": inputs}).json()["data"]
    return [each["id"] for each in data]


def ledger(folder: str | Path) -> list[list[str]]:
    lines = Path(folder, "ledger").read_text().splitlines()
    return [line.split() for line in lines]


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(system: Local, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker of the pool `shelf` with so many bytes of memory and other settings, and waits until it
    serves."""
    classes = "".join(f'[[models]]\nclass = "tests.shelf_models:{name}"\npool = "shelf"\n' for name in SHARED)
    (tmp_path / "tundish.toml").write_text(classes)
    given = system.beside(TUNDISH_MODELS="", TUNDISH_POOL="shelf", TUNDISH_LEASE="3", SHELF=str(tmp_path))
    command = [sys.executable, "-m", "workers"]
    with ExitStack() as stack:

        def started(memory: int, **settings: str) -> "subprocess.Popen[bytes]":
            limited = given | {"TUNDISH_DEVICE_MEMORY": str(memory)} | settings
            process = stack.enter_context(subprocess.Popen(command, cwd=tmp_path, env=limited))
            stack.callback(process.kill)
            wait_until(lambda: process.pid in serving(system), "it serves")
            return process

        yield started


def consuming(local: Local, workers: int = 1) -> list[str]:
    """The versions whose normal queue each of so many workers consumes."""
    control = Celery(broker=local.ps()["valkey"]["url"].replace("unix://", "redis+socket://")).control
    told = control.inspect(timeout=5, limit=workers).active_queues() or {}
    queues = [Queue.parse(each["name"]) for found in told.values() for each in found]
    return [f"{each.model}@{each.version}" for each in queues if each and each.priority is Priority.NORMAL]


def serving(system: Local) -> dict[int, list[str]]:
    """What each worker lists, by its pid."""
    with system.client(KEY) as client:
        workers = client.get("/v1/workers").json()["data"]
    return {each["pid"]: each["models"] for each in workers if each["state"] in ("idle", "busy")}


def test_three_models_are_served_where_two_fit(local: Local, client: httpx.Client) -> None:
    jobs = [id for _ in range(5) for model in ("one", "two", "three") for id in submit(client, model, 4)]
    assert {ended(client, id)["status"] for id in jobs} == {"succeeded"}
    there: set[str] = set()
    for what, model, _ in ledger(local.settings["SHELF"]):
        if what == "load":
            there.add(model)
        else:
            there.remove(model)
        assert len(there) <= 2
    assert sum(what == "load" for what, _, _ in ledger(local.settings["SHELF"])) < len(jobs)
    device = {f"{model}@1" for model in there}

    def told() -> bool:
        [worker] = client.get("/v1/workers").json()["data"]
        places = worker["places"]
        assert (places["large@1"]["place"], places["large@1"]["bytes"]) == ("nowhere", 5000)
        assert "large@1" not in worker["models"]
        return {model for model, lies in places.items() if (lies["place"], lies["bytes"]) == ("device", 1000)} == device

    wait_until(told, "a heart-beat tells where they lie")
    with psycopg.connect(local.ps()["postgres"]["url"], autocommit=True) as connection:
        # A job's predict takes a tenth of that at most: the rest is what it took to bring the models.
        job_ms = "SELECT true FROM workers WHERE job_ms > 0.5"
        wait_until(lambda: connection.execute(job_ms).fetchone(), "a heart-beat tells what a job took of the device")


def test_two_workers_share_a_device_and_what_one_held_comes_back_when_it_is_killed(
    system: Local, start: Start, tmp_path: Path
) -> None:
    def there(dead: int | None = None) -> Counter[int]:
        """How many models each worker that lives has on the device at the end."""
        held: Counter[int] = Counter()
        for what, _, pid in ledger(tmp_path):
            if int(pid) != dead:
                held[int(pid)] += 1 if what == "load" else -1
                assert held.total() <= 2
        return held

    with system.client(KEY) as client:
        first, second = start(2000), start(2000)
        done: list[dict[str, Any]] = []

        def both() -> bool:
            """Whether each has had some, after so many more."""
            jobs = [id for _ in range(10) for model in ("one", "two", "three") for id in submit(client, model, 4)]
            done.extend(ended(client, id) for id in jobs)
            return len({job["worker"] for job in done}) == 2

        wait_until(both, "both workers have had jobs")
        assert Counter(job["status"] for job in done) == {"succeeded": len(done)}
        killed, other = (first, second) if there()[first.pid] else (second, first)
        assert there()[killed.pid]
        killed.kill()
        jobs = [id for model in ("one", "two", "three") for id in submit(client, model, 4)]
        assert {ended(client, id)["status"] for id in jobs} == {"succeeded"}
        assert there(dead=killed.pid)[other.pid] == 2


def test_what_a_worker_cannot_hold_is_left_to_one_that_can(system: Local, start: Start, tmp_path: Path) -> None:
    with system.client(KEY) as client:
        small = start(2000)
        assert "large@1" not in serving(system)[small.pid]
        [failed] = submit(client, "large")
        assert ended(client, failed)["error"]["code"] == "model_load_failed"
        large = start(6000)
        assert "large@1" in serving(system)[large.pid]
        jobs = [id for _ in range(5) for model in ("large", "one") for id in submit(client, model, 4)]
        assert {ended(client, id)["status"] for id in jobs} == {"succeeded"}
        wait_until(lambda: consuming(system, 3).count("large@1") == 1, "its queues are left to the other")
        large.kill()
        wait_until(lambda: large.pid not in serving(system), "it is lost")
        [failed] = submit(client, "large")
        assert ended(client, failed)["error"]["code"] == "model_load_failed"


def test_a_model_that_fits_no_device_fails_its_jobs_with_what_to_set(client: httpx.Client) -> None:
    [large], [one] = submit(client, "large"), submit(client, "one")
    error = ended(client, large)["error"]
    assert (error["code"], error["retryable"]) == ("model_load_failed", True)
    assert "5,000 bytes of the device's 2,000; set TUNDISH_DEVICE_MEMORY" in error["message"]
    assert ended(client, one)["status"] == "succeeded"


def test_a_load_that_fails_harms_no_other_model_and_is_tried_again(local: Local, client: httpx.Client) -> None:
    worker = local.ps()["worker"]["pid"]
    [broken], [one] = submit(client, "broken"), submit(client, "one")
    assert ended(client, one)["status"] == "succeeded"
    error = ended(client, broken)["error"]
    assert error["code"] == "model_load_failed"
    assert "OSError: the weights are not there" in error["message"]
    wait_until(lambda: "broken@1" not in consuming(local), "its queues are left to others")
    assert "one@1" in consuming(local)
    Path(local.settings["SHELF"], "mended").touch()
    [mended] = submit(client, "broken")
    assert ended(client, mended)["status"] == "succeeded"
    assert local.ps()["worker"]["pid"] == worker


def test_a_worker_that_leaks_is_replaced_and_no_job_fails(local: Local, client: httpx.Client) -> None:
    worker, log = local.ps()["worker"]["pid"], Path(local.ps()["worker"]["log"])
    jobs = submit(client, "leaking", Leaking.many + 40)
    # It is past its limit while jobs are left, and goes on once it takes none of them.
    wait_until(lambda: "no claim from now on" in log.read_text(), "it drains")
    Path(local.settings["SHELF"], "drains").touch()
    done = [ended(client, id) for id in jobs]
    assert {job["status"] for job in done} == {"succeeded"}
    wait_until(lambda: local.ps()["worker"]["pid"] not in (None, worker), "another worker runs")
    assert "worker ended (exit status 75); it is started again in 0 s" in (local.folder / "logs/up.log").read_text()
    with psycopg.connect(local.ps()["postgres"]["url"]) as connection:
        assert connection.execute("SELECT sum(deaths) FROM jobs WHERE model = 'leaking'").fetchone() == (0,)
    assert len({job["worker"] for job in done}) > 1


def test_a_worker_that_has_run_its_jobs_drains_for_another_and_no_job_fails(system: Local, start: Start) -> None:
    with system.client(KEY) as client:
        first = start(2000, TUNDISH_MAX_JOBS="8")
        jobs = submit(client, "one", 60)
        assert first.wait(60) == exits.GROWN
        second = start(2000)
        done = [ended(client, id) for id in jobs]
    assert {job["status"] for job in done} == {"succeeded"}
    assert second.poll() is None
    with psycopg.connect(system.ps()["postgres"]["url"]) as connection:
        deaths = connection.execute("SELECT sum(deaths) FROM jobs WHERE model = 'one'").fetchone()
    assert deaths == (0,)


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
