"""Submits that wait, against a real Postgres and Redis: what was accepted is answered so, whatever comes after."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from tests.local import wait_until
from tundish import store
from tundish.blobs import BlobOversized, Directory
from tundish.ids import from_text
from tundish.routing import Routing


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> Iterator[TestClient]:
    with serve() as client:
        yield client


def cannot_be_read(connection: store.Connection, id: UUID) -> None:
    """Postgres answers no read, though it tells that the job has moved."""
    store.cancel(connection, 1, id)
    connection.execute(text("ALTER TABLE results RENAME TO away"))


def is_deleted(connection: store.Connection, id: UUID) -> None:
    store.cancel(connection, 1, id)
    assert store.delete(connection, 1, id, "")


@pytest.mark.parametrize("happens", [cannot_be_read, is_deleted])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}], ids=["no key", "key"])
def test_a_job_that_cannot_be_looked_at_any_more_was_accepted(
    client: TestClient,
    engine: store.Engine,
    happens: Callable[[store.Connection, UUID], None],
    headers: dict[str, str],
) -> None:
    def accepted() -> UUID | None:
        with engine.begin() as connection:
            found: UUID | None = connection.execute(text("SELECT id FROM jobs")).scalar()
            return found

    with ThreadPoolExecutor(1) as threads:
        job = {"model": "m", "input": 1}
        waits = threads.submit(client.post, "/v1/jobs", json=job, headers={"Prefer": "wait=60", **headers})
        id = wait_until(accepted, "the job is stored")
        with engine.begin() as connection:
            happens(connection, id)
        answer = waits.result()
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")


OPTIONS: dict[str, Any] = {
    "webhook": "https://1.1.1.1/",
    "priority": "high",
    "expires_in": 100,
    "timeout": 7.5,
    "sticky_key": "a",
}


def test_options_are_those_of_each_job_however_they_come(client: TestClient, engine: store.Engine) -> None:
    fields = {"model": "m", "metadata": {"k": "v"}, **OPTIONS}
    client.post("/v1/jobs", json={"input": 1, **fields})
    client.post("/v1/models/m/jobs", json=1, params={"metadata.k": "v", **OPTIONS})
    client.post("/v1/jobs:batch", json={"inputs": [1, 1], **fields})
    shown = client.get("/v1/jobs").json()["data"]
    assert [(each["priority"], each["metadata"]) for each in shown] == [("high", {"k": "v"})] * 4
    columns = "webhook, timeout, sticky_key, extract(epoch FROM expires_at - now())::float8 AS left"
    with engine.begin() as connection:
        found = connection.execute(text(f"SELECT {columns} FROM requests JOIN jobs USING (id)")).all()
    assert [each[:3] for each in found] == [("https://1.1.1.1/", 7.5, "a")] * 4
    assert all(70 < each.left <= 100 for each in found)


def test_every_list_has_one_shape(client: TestClient) -> None:
    for name in ("jobs", "models", "batches", "webhooks", "deliveries", "workers", "pools"):
        shown = client.get(f"/v1/{name}").json()
        assert (list(shown), type(shown["data"]), shown["next_cursor"]) == (["data", "next_cursor"], list, None)


def test_ten_thousand_inputs_are_jobs_in_their_order(client: TestClient, engine: store.Engine) -> None:
    answer = client.post("/v1/jobs:batch", json={"model": "m", "inputs": list(range(10_000))})
    assert answer.status_code == 202
    told = [(each["status"], from_text("job", each["id"])) for each in answer.json()["data"]]
    with engine.begin() as connection:
        stored = connection.execute(text("SELECT id, convert_from(body, 'UTF8')::int AS input FROM requests")).all()
    assert told == [("queued", id) for id, _ in sorted(stored, key=attrgetter("input"))]
    assert sorted(each.input for each in stored) == list(range(10_000))


def test_an_input_that_draws_a_version_which_takes_no_json_is_refused_alone(
    client: TestClient, engine: store.Engine
) -> None:
    octets = "application/octet-stream"
    with engine.begin() as connection:
        store.register(connection, [store.Version("m", "2", "default", octets, octets, None, None, 8, 0.0)])
        store.route(connection, "m", "both", Routing({"1": 1, "2": 1}))
    answer = client.post("/v1/jobs:batch", json={"model": "m:both", "inputs": list(range(40))})
    assert answer.status_code == 202
    data = answer.json()["data"]
    taken = [from_text("job", each["id"]) for each in data if "id" in each]
    refused = [(index, each["error"]) for index, each in enumerate(data) if "error" in each]
    assert 0 < len(taken) < len(data) == len(taken) + len(refused)
    for index, error in refused:
        assert (error["code"], error["index"]) == ("unsupported_media_type", index)
        assert error["message"].startswith("m takes bytes of any type, not JSON")
    with engine.begin() as connection:
        assert set(connection.scalars(text("SELECT id FROM jobs WHERE version = '1'"))) == set(taken)
        assert connection.scalar(text("SELECT count(*) FROM jobs")) == len(taken)
    answer = client.post("/v1/jobs:batch", json={"model": "m@2", "inputs": [1, 2]})
    assert answer.status_code == 202
    told = [(each["error"]["code"], each["error"]["index"]) for each in answer.json()["data"]]
    assert told == [("unsupported_media_type", 0), ("unsupported_media_type", 1)]


def test_of_one_input_more_nothing_is_stored(client: TestClient, engine: store.Engine) -> None:
    answer = client.post("/v1/jobs:batch", json={"model": "m", "inputs": list(range(10_001))})
    assert answer.status_code == 422
    fault = {"pointer": "/inputs", "detail": "expected `array` of length <= 10000"}
    assert (answer.json()["code"], answer.json()["errors"]) == ("invalid_request", [fault])
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM jobs")) == 0


def test_a_job_may_wait_as_long_as_it_is_kept(serve: Callable[..., TestClient]) -> None:
    with serve(retention=40_000_000) as client:
        for expires_in, status in ((32_000_000, 202), (40_000_000, 202), (40_000_001, 422), (2e9, 422)):
            job = {"model": "m", "input": 1, "expires_in": expires_in}
            assert client.post("/v1/jobs", json=job).status_code == status


def test_an_input_that_is_larger_than_the_store_takes_is_refused(
    client: TestClient, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def oversized(self: Directory, key: str, body: bytes, content_type: str) -> None:
        raise BlobOversized("it takes 20 bytes")

    monkeypatch.setattr(Directory, "put", oversized)
    answer = client.post("/v1/jobs", json={"model": "m", "input": "x" * 100_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    with engine.begin() as connection:
        assert not connection.execute(text("SELECT count(*) FROM jobs")).scalar()


def test_no_call_waits_for_a_redis_that_is_silent(serve: Callable[..., TestClient]) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, serve(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}") as client:
        path = f"/v1/jobs/{client.post('/v1/jobs', json={'model': 'm', 'input': 1}).json()['id']}"
        for call in (partial(client.post, f"{path}/cancel"), partial(client.delete, path)):
            began = time.monotonic()
            assert call().is_success
            assert time.monotonic() - began < 3
