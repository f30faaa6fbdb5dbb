"""Many models on one device, and workers that are replaced."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from celery import Celery

from tests.conftest import KEY
from tests.local import Local, ended, wait_until
from tests.shelf_models import Leaking
from tundish.job import Priority
from tundish.queue import Queue
from workers import exits

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


def test_what_a_worker_cannot_hold_is_left_to_one_that_can(system: Local, start: Start) -> None:
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
