"""What goes wrong inside a worker: a predict that hangs, a device that is poisoned, a caller who no longer wants it."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.local import Local, ended, wait_until


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    models = "tests.models:Echo,Gated,Hanging,Pooled"
    local = Local(tmp_path_factory.mktemp("faults"), {"TUNDISH_LEASE": "2", "TUNDISH_MODELS": models})
    with local.running():
        yield local


@pytest.fixture
def client(local: Local) -> Iterator[httpx.Client]:
    with local.client() as client:
        yield client


def submit(client: httpx.Client, *orders: str) -> list[str]:
    inputs = [{"do": order} for order in orders]
    answer = client.post("/v1/jobs:batch", json={"model": "hanging", "inputs": inputs}).json()
    return [each["id"] for each in answer["data"]]


@pytest.mark.parametrize("hangs", ["hang", "hang ahead"])
def test_a_hung_predict_is_killed_and_its_neighbours_succeed(local: Local, client: httpx.Client, hangs: str) -> None:
    worker = local.ps()["worker"]["pid"]
    good, hung, other = (ended(client, id) for id in submit(client, "go", hangs, "go"))
    assert (good["status"], other["status"]) == ("succeeded", "succeeded")
    error = hung["error"]
    assert isinstance(error, dict)
    assert (hung["status"], error["code"], error["retryable"]) == ("failed", "timeout", True)
    assert local.ps()["worker"]["pid"] != worker
    assert "predict hangs" in Path(local.ps()["worker"]["log"]).read_text()


def test_a_poisoned_device_ends_the_worker_and_only_the_culprit_fails(local: Local, client: httpx.Client) -> None:
    worker = local.ps()["worker"]["pid"]
    good, poison = (ended(client, id) for id in submit(client, "go", "poison"))
    assert good["status"] == "succeeded"
    error = poison["error"]
    assert isinstance(error, dict)
    assert (poison["status"], error["code"]) == ("failed", "worker_lost")
    assert local.ps()["worker"]["pid"] != worker


def test_with_one_attempt_each_job_runs_alone_and_at_once(tmp_path: Path) -> None:
    local = Local(tmp_path, {"TUNDISH_MAX_ATTEMPTS": "1", "TUNDISH_MODELS": "tests.models:Echo"})
    with local.running(), local.client() as client:
        inputs = [{"value": number} for number in range(5)]
        began = time.monotonic()
        data = client.post("/v1/jobs:batch", json={"model": "echo", "inputs": inputs}).json()["data"]
        jobs = [client.get(f"/v1/jobs/{each['id']}?wait=20").json() for each in data]
        assert time.monotonic() - began < 4  # the sweep would have sent them again after 5 s
    assert [(job["status"], job["timings"]["batch_size"]) for job in jobs] == [("succeeded", 1)] * 5


def test_a_running_job_is_let_go_where_its_model_asks(client: httpx.Client, tmp_path: Path) -> None:
    job = client.post("/v1/jobs", json={"model": "gated", "input": {"folder": str(tmp_path), "name": "a"}}).json()
    wait_until((tmp_path / "began").exists, "predict began", 60)
    asked = client.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert (asked["status"], asked["cancel_requested"]) == ("running", True)
    done = ended(client, job["id"])
    assert (done["status"], done["cancel_requested"], done["output"]) == ("canceled", True, None)


def test_a_model_may_fork_processes_and_end_them(client: httpx.Client) -> None:
    """What is forked off a worker is no worker: a signal to end ends it."""
    job = client.post("/v1/jobs", json={"model": "pooled", "input": {"value": 7}}).json()
    done = ended(client, job["id"])
    assert (done["status"], done["output"]) == ("succeeded", {"value": 7}), done
