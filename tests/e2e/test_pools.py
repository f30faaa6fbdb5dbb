"""Pools and workers as an operator sees them: figures, pause and resume with a real worker, and none at all."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.local import Local, ended, wait_until
from tundish import store


def pool(client: httpx.Client, name: str = "default", **query: Any) -> dict[str, Any]:
    shown: dict[str, Any] = client.get(f"/v1/pools/{name}", params=query).json()
    return shown


def submit(client: httpx.Client, model: str, value: object = 1) -> str:
    answer = client.post("/v1/jobs", json={"model": model, "input": {"value": value}})
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    return id


@pytest.fixture
def resumed(client: httpx.Client) -> Iterator[None]:
    """Whatever a test pauses goes on after it."""
    yield
    for path in ("pools/default", "models/echo", "models/echo/versions/1", "models/gated"):
        assert client.post(f"/v1/{path}/resume").status_code == 200


def test_a_worker_tells_where_it_runs_and_what(system: Local, client: httpx.Client) -> None:
    shown = client.get("/v1/workers").json()
    assert shown["next_cursor"] is None
    [worker] = [each for each in shown["data"] if each["state"] != "lost"]
    assert list(worker) == (
        "id pool device memory_total memory_used models places batch_size state pid host seen_at".split()
    )  # fmt: skip
    assert worker["id"].startswith("wrk_")
    assert (worker["pool"], worker["device"], worker["state"]) == ("default", "cpu", "idle")
    assert {"echo@1", "scale@1", "scale@2", "scale@3"} <= set(worker["models"])
    assert worker["places"] == {model: {"place": "device", "bytes": 0, "error": None} for model in worker["models"]}
    assert worker["pid"] == system.ps()["worker"]["pid"]


def test_a_pool_tells_its_load(client: httpx.Client) -> None:
    ended(client, submit(client, "echo"))
    shown = wait_until(lambda: (now := pool(client))["service_per_s"] > 0 and now, "a heart-beat tells the pace", 10)
    assert list(shown) == (
        "name models backlog oldest_age_s arrival_per_s service_per_s workers suggested_replicas running paused".split()
    )
    assert "echo@1" in shown["models"]
    assert shown["arrival_per_s"] > 0
    assert (shown["name"], shown["workers"], shown["paused"]) == ("default", 1, False)
    assert shown in [{**each, **_moving(shown)} for each in client.get("/v1/pools").json()["data"]]


def _moving(shown: dict[str, Any]) -> dict[str, Any]:
    return {name: shown[name] for name in ("backlog", "oldest_age_s", "arrival_per_s", "service_per_s",
                                           "suggested_replicas", "running")}  # fmt: skip


@pytest.mark.parametrize("path", ["models/echo", "models/echo/versions/1", "pools/default"])
@pytest.mark.usefixtures("resumed")
def test_jobs_of_what_is_paused_are_accepted_and_wait(client: httpx.Client, path: str) -> None:
    before = pool(client)["backlog"]
    assert client.post(f"/v1/{path}/pause").json()["paused"] is True
    assert client.post(f"/v1/{path}/pause").json()["paused"] is True
    assert client.get(f"/v1/{path}").json()["paused"] is True
    # A job that came while the worker had not heard yet runs; from the first that waits on, all do.
    wait_until(lambda: client.get(f"/v1/jobs/{submit(client, 'echo')}?wait=1").json()["status"] == "queued", "it waits")
    jobs = [submit(client, "echo", value) for value in range(3)]
    if path != "pools/default":  # what is not paused goes on, past what waits
        answer = client.post("/v1/jobs", json={"model": "scale", "input": {"values": [1]}}).json()
        assert ended(client, answer["id"])["status"] == "succeeded"
    assert {client.get(f"/v1/jobs/{id}").json()["status"] for id in jobs} == {"queued"}
    assert pool(client)["backlog"] >= before + 4
    assert client.post(f"/v1/{path}/resume").json()["paused"] is False
    assert [ended(client, id)["output"] for id in jobs] == [{"value": value} for value in range(3)]


@pytest.mark.usefixtures("resumed")
def test_what_is_paused_is_drained_once_nothing_of_it_runs(client: httpx.Client, tmp_path: Path) -> None:
    def running() -> list[int]:
        return [client.get(f"/v1/{path}").json()["running"] for path in ("models/gated", "models/gated/versions/1")]

    gate = {"model": "gated", "input": {"folder": str(tmp_path), "name": "job"}}
    job = client.post("/v1/jobs", json=gate).json()["id"]
    wait_until((tmp_path / "began").exists, "it runs")
    shown = client.post("/v1/models/gated/pause").json()
    assert (shown["paused"], shown["running"]) == (True, 1)
    assert running() == [1, 1]
    assert pool(client)["running"] >= 1
    assert {each["name"]: each["running"] for each in client.get("/v1/models").json()["data"]}["gated"] == 1
    (tmp_path / "open").touch()
    assert ended(client, job)["status"] == "succeeded"
    assert running() == [0, 0]
    wait_until(lambda: pool(client)["running"] == 0, "nor does anything else")
    assert client.get("/v1/models/gated").json()["paused"] is True


@pytest.mark.usefixtures("resumed")
def test_a_job_expires_in_a_pause(client: httpx.Client) -> None:
    assert client.post("/v1/models/echo/pause").status_code == 200
    wait_until(lambda: client.get(f"/v1/jobs/{submit(client, 'echo')}?wait=1").json()["status"] == "queued", "it waits")
    short = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}, "expires_in": 0.1}).json()
    assert ended(client, short["id"])["error"]["code"] == "expired"


def test_a_pool_with_no_worker_wants_one_as_soon_as_a_job_waits(system: Local, client: httpx.Client) -> None:
    name = f"away-{uuid4().hex[:8]}"
    away = store.Version(name, "1", name, "application/json", "application/json", None, None, 8, 0.0)
    engine = store.engine(system.ps()["postgres"]["url"])
    with engine.begin() as connection:
        store.register(connection, [away])
    engine.dispose()
    shown = pool(client, name)
    assert (shown["models"], shown["workers"], shown["suggested_replicas"]) == ([f"{name}@1"], 0, 0)
    waiting = submit(client, name)
    shown = pool(client, name)
    assert (shown["backlog"], shown["workers"], shown["suggested_replicas"]) == (1, 0, 1)
    assert shown["oldest_age_s"] >= 0
    # Paused, it waits for no worker; and the other way round.
    paused = client.post(f"/v1/pools/{name}/pause").json()
    assert (paused["backlog"], paused["suggested_replicas"], paused["paused"]) == (1, 0, True)
    assert client.post(f"/v1/pools/{name}/resume").json()["suggested_replicas"] == 1
    assert client.post(f"/v1/jobs/{waiting}/cancel").json()["status"] == "canceled"
    assert client.get("/metrics").text.count(f'model="{name}"') == 0


POOLED = """
from tests.models import Echo, Scale1

class Near(Echo):
    name = "near"

class Far(Echo):
    name = "far"
"""
PROJECT = """
[[models]]
class = "pooled:Near"
pool = "near"

[[models]]
class = "pooled:Far"
pool = "far"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose models are of two pools."""
    (tmp_path / "pooled.py").write_text(POOLED)
    (tmp_path / "tundish.toml").write_text(PROJECT)
    return tmp_path


@contextmanager
def working(system: Local, client: httpx.Client, project: Path, name: str) -> Iterator[Path]:
    """A worker of one pool, which has served a job before it is ended in good order; its log."""
    log = project / f"{name}.log"
    environment = system.beside(TUNDISH_POOL=name, TUNDISH_MODELS="")  # tundish.toml names them
    command = [sys.executable, "-P", "-m", "workers"]
    with log.open("a") as said, subprocess.Popen(command, cwd=project, env=environment, stderr=said) as process:
        try:
            wait_until(lambda: pool(client, name).get("workers") == 1, f"a worker of {name} is there")
            yield log
        finally:
            process.terminate()
            status = process.wait(30)
    assert status == 0, log.read_text()


def test_a_pool_goes_to_a_worker_and_back_to_none_beside_another(
    system: Local, client: httpx.Client, project: Path
) -> None:
    def far() -> tuple[int, int, int, int]:
        shown = pool(client, "far")
        return shown["backlog"], shown["running"], shown["workers"], shown["suggested_replicas"]

    def delete(id: str) -> None:
        """It never arrived: the pool is as quiet as after minutes."""
        ended(client, id)
        assert client.delete(f"/v1/jobs/{id}").status_code == 204

    with working(system, client, project, "near"):
        with working(system, client, project, "far"):  # the catalog learns of its model
            assert pool(client, "far")["models"] == ["far@1"]
            assert pool(client, "near")["models"] == ["near@1"]
            delete(submit(client, "far"))
        assert far() == (0, 0, 0, 0)
        waiting = submit(client, "far", "there")
        assert ended(client, submit(client, "near", "here"))["output"] == {"value": "here"}
        assert client.get(f"/v1/jobs/{waiting}").json()["status"] == "queued"
        assert far() == (1, 0, 0, 1)
        with working(system, client, project, "far"):
            done = ended(client, waiting)
            assert done["output"] == {"value": "there"}
            workers = {each["pool"]: each["id"] for each in client.get("/v1/workers").json()["data"]}
            assert done["worker"] == workers["far"] != workers["near"]
            assert far() == (0, 0, 1, 1)
        assert far() == (0, 0, 0, 1)  # one has come lately
        delete(waiting)
        assert far() == (0, 0, 0, 0)
        assert pool(client, "near")["workers"] == 1


def test_a_worker_warns_of_a_version_that_promises_something_else(
    system: Local, client: httpx.Client, project: Path
) -> None:
    warning = "far@1 was known with another schema or artifact"
    with working(system, client, project, "far") as log:
        ended(client, submit(client, "far"))
        assert warning not in log.read_text()
    (project / "pooled.py").write_text(POOLED.replace("Far(Echo)", "Far(Scale1)"))
    with working(system, client, project, "far") as log:
        assert "values" in str(client.get("/v1/models/far/versions/1").json()["input_schema"])
        job = client.post("/v1/jobs", json={"model": "far", "input": {"values": [1.0]}}).json()
        assert ended(client, job["id"])["output"] == {"values": [1.0]}
        assert warning in log.read_text()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/pools/none", 404, "pool_not_found"),
        ("POST", "/v1/pools/none/pause", 404, "pool_not_found"),
        ("POST", "/v1/models/none/pause", 404, "model_not_found"),
        ("POST", "/v1/models/echo/versions/9/resume", 404, "version_not_found"),
        ("GET", "/v1/pools?target_wait=0", 422, "invalid_request"),
        ("GET", "/v1/pools?target_wait=1.5", 422, "invalid_request"),
        ("GET", "/v1/pools?color=red", 422, "invalid_request"),
        ("GET", "/v1/workers?pool=x", 422, "invalid_request"),
        ("GET", "/v1/models/echo/pause", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_and_what_is_not_asked(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
