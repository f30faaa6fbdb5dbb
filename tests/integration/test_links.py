"""Links: absolute where TUNDISH_PUBLIC_URL is set, else relative."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from starlette.testclient import TestClient

from tests.integration.batches.steps import expanded, run, settle
from tests.integration.delivered import endpoint, finish, rows
from tests.integration.stored import let_expire
from tests.local import TREE, Local
from tests.sse import parse
from tundish import store
from tundish.blobs import Directory
from tundish.ids import from_text
from tundish.outcome import Done
from tundish.settings import Settings
from workers.chores import Tools, expire

PUBLIC = "https://tundish.example/inference"
VALUE = json.dumps("x" * 1000).encode()  # over what `finish` keeps in a row


@pytest.fixture(params=["", PUBLIC], ids=["relative", "absolute"])
def base(request: pytest.FixtureRequest) -> str:
    """What stands before the path of each link."""
    given: str = request.param
    return given


@pytest.fixture
def client(serve: Callable[..., TestClient], base: str) -> Iterator[TestClient]:
    with serve(public_url=base, max_body=100_000) as client:
        yield client


@pytest.fixture
def tools(engine: store.Engine, emptied: redis.Redis, base: str, tmp_path: Path) -> Tools:
    return Tools(Settings(public_url=base), engine, emptied, Directory(tmp_path, b""))


def links(base: str, id: str) -> dict[str, str]:
    here = f"{base}/v1/jobs/{id}"
    return {"self": here} | {name: f"{here}/{name}" for name in ("cancel", "result", "events")}


def submitted(client: TestClient, model: str = "m", value: Any = 1) -> tuple[str, UUID]:
    """A job as callers name it, and as the store does."""
    id: str = client.post("/v1/jobs", json={"model": model, "input": value}).json()["id"]
    return id, from_text("job", id) or UUID(int=0)


def told(engine: store.Engine) -> dict[str, dict[str, Any]]:
    """The webhooks that are queued: their data by their event."""
    return {event: json.loads(body)["data"] for event, body in rows(engine, "event, body")}


def test_the_links_of_a_job(client: TestClient, base: str, engine: store.Engine, tmp_path: Path) -> None:
    asked, key = {"model": "m", "input": 1}, {"Idempotency-Key": "one"}
    first, repeat = (client.post("/v1/jobs", json=asked, headers=key) for _ in range(2))
    id = first.json()["id"]
    finish(engine, [from_text("job", id) or UUID(int=0)], tmp_path, Done(VALUE, "application/json"))
    here = f"/v1/jobs/{id}"
    [listed] = client.get("/v1/jobs").json()["data"]
    [*_, last] = parse(client.get(f"{here}/events").text.splitlines(keepends=True))
    shown = [each.json() for each in (first, repeat, client.get(here), client.post(f"{here}/cancel"))]
    for job in (*shown, listed, last.data):
        assert job["urls"] == links(base, id)
    again = client.post(f"{here}/retry")
    waited = client.post("/v1/models/m/jobs", json=1, headers={"Prefer": "wait=0.01"})
    for answer in (first, repeat, again, waited):
        assert answer.headers["location"] == f"{base}/v1/jobs/{answer.json()['id']}"
    result = client.get(f"{here}/result", follow_redirects=False).headers["location"]
    assert result.startswith(f"{base}/v1/blobs/")
    assert client.get(result.removeprefix(base)).content == VALUE


def test_the_links_of_an_upload_a_batch_and_an_endpoint(
    client: TestClient, base: str, engine: store.Engine, tools: Tools
) -> None:
    made = client.post("/v1/webhooks", json={"url": "https://example.com/", "events": ["batch.succeeded"]})
    assert made.headers["location"] == f"{base}/v1/webhooks/{made.json()['id']}"
    lines = b'{"custom_id": "a", "input": 1}\nno JSON'
    upload = client.post("/v1/uploads", json={"content_type": "application/jsonl", "size": len(lines)}).json()
    assert upload["url"].startswith(f"{base}/v1/blobs/")
    assert client.put(upload["url"].removeprefix(base), content=lines, headers=upload["headers"]).status_code == 200
    batch = client.post("/v1/batches", json={"model": "m", "upload": upload["id"]})
    id = batch.json()["id"]
    here = f"/v1/batches/{id}"
    assert batch.headers["location"] == f"{base}{here}"
    expanded(tools, from_text("bat", id) or UUID(int=0))
    run(tools)
    settle(tools, from_text("bat", id) or UUID(int=0))
    [listed] = client.get("/v1/batches").json()["data"]
    for name, shows in (("output", '"a"'), ("error", '"line":2')):
        file = client.get(f"{here}/{name}", follow_redirects=False).headers["location"]
        for url in (client.get(here).json()[f"{name}_url"], listed[f"{name}_url"], file):
            assert url.startswith(f"{base}/v1/blobs/")
            assert shows in client.get(url.removeprefix(base)).text
        assert told(engine)["batch.succeeded"][f"{name}_url"] == f"{base}{here}/{name}"


def test_the_links_of_webhooks_that_the_api_and_the_chores_tell(
    client: TestClient, base: str, engine: store.Engine, tools: Tools
) -> None:
    endpoint(engine)
    (canceled, _), (expired, late) = submitted(client), submitted(client)
    client.post(f"/v1/jobs/{canceled}/cancel")
    let_expire(engine, late)
    assert expire.run(tools) == 1
    found = {event: job["urls"] for event, job in told(engine).items()}
    assert found == {"job.canceled": links(base, canceled), "job.failed": links(base, expired)}


@pytest.mark.parametrize("base", [PUBLIC], indirect=True)
def test_the_links_of_webhooks_that_a_worker_tells(
    client: TestClient, base: str, engine: store.Engine, system: Local, database_url: str, tmp_path: Path
) -> None:
    endpoint(engine, ["job.started", "job.succeeded"])
    stores = {"TUNDISH_DATABASE_URL": database_url, "TUNDISH_BLOB_URL": f"file://{tmp_path}"}
    stores["TUNDISH_REDIS_URL"] = system.ps()["valkey"]["url"] + "?db=7"
    given = system.beside(TUNDISH_MODELS="tests.models:Echo", TUNDISH_PUBLIC_URL=f"{base}/", **stores)
    with engine.begin() as connection:
        store.register(connection, [store.Version("echo", "1", "default", "application/json", "application/json",
                                                  None, None, 8, 0.0)])  # fmt: skip
    with subprocess.Popen([sys.executable, "-P", "-m", "workers"], env=given, cwd=TREE) as worker:
        try:
            id, _ = submitted(client, "echo", {"value": 1})
            assert client.get(f"/v1/jobs/{id}?wait=60").json()["status"] == "succeeded"
        finally:
            worker.terminate()
    found = {event: job["urls"] for event, job in told(engine).items()}
    assert found == {event: links(base, id) for event in ("job.started", "job.succeeded")}
