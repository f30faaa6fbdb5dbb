"""Idempotency-Key: what is sent again makes no second job."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.local import Local, ended

JOB = {"model": "echo", "input": {"value": 1}}


def post(client: httpx.Client, key: str, job: object = JOB, path: str = "/v1/jobs", **headers: str) -> httpx.Response:
    return client.post(path, json=job, headers={"Idempotency-Key": key, **headers})


def test_a_repeat_gets_the_first_answer(client: httpx.Client) -> None:
    key = str(uuid4())
    first = post(client, key)
    assert first.status_code == 202
    assert "idempotency-replayed" not in first.headers
    client.get(f"/v1/jobs/{first.json()['id']}?wait=30")
    for repeat in (post(client, key), post(client, f'"{key}"')):
        assert repeat.headers["idempotency-replayed"] == "true"
        assert (repeat.status_code, repeat.content) == (202, first.content)
        assert repeat.headers["location"] == first.headers["location"]


def test_another_body_query_or_type_is_refused_and_another_path_is_another_request(client: httpx.Client) -> None:
    key = str(uuid4())
    path = "/v1/models/echo/jobs"
    first = post(client, key, {"value": 1}, path)
    typed = {"Content-Type": "application/json; charset=utf-8"}
    for other in (
        post(client, key, {"value": 2}, path),
        post(client, key, {"value": 1}, f"{path}?priority=low"),
        post(client, key, {"value": 1}, path, **typed),
    ):
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    elsewhere = post(client, key)
    assert elsewhere.status_code == 202
    assert elsewhere.json()["id"] != first.json()["id"]


def test_a_path_is_the_same_however_it_is_encoded(client: httpx.Client) -> None:
    key = str(uuid4())
    first = post(client, key, {"value": 1}, "/v1/models/echo@1/jobs")
    assert first.status_code == 202
    for path in ("/v1/models/echo%401/jobs", "/v1/models/%65cho@1/jobs"):
        assert post(client, key, {"value": 1}, path).content == first.content
    for path in ("/v1/models/echo%001/jobs", "/v1/models/%ff/jobs"):
        assert post(client, key, {"value": 1}, path).status_code == 404


def test_fifty_at_once_make_one_job(client: httpx.Client) -> None:
    key, metadata = str(uuid4()), {"run": uuid4().hex}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(client, key, {**JOB, "metadata": metadata}), range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert len(client.get(f"/v1/jobs?metadata.run={metadata['run']}").json()["data"]) == 1


def test_what_was_refused_is_not_remembered(client: httpx.Client) -> None:
    key = str(uuid4())
    assert post(client, key, {"model": "nothing", "input": 1}).status_code == 404
    assert post(client, key).status_code == 202


def test_a_repeat_of_a_request_that_waited_gets_the_finished_job(client: httpx.Client) -> None:
    key = str(uuid4())
    first = post(client, key, Prefer="wait=30")
    assert (first.status_code, first.json()["status"]) == (200, "succeeded")
    repeat = post(client, key)
    assert (repeat.status_code, repeat.content) == (200, first.content)
    assert client.delete(f"/v1/jobs/{first.json()['id']}").status_code == 204
    repeat = post(client, key)
    assert (repeat.status_code, repeat.json()["status"], repeat.json()["output"]) == (202, "queued", None)


def test_a_repeat_of_a_request_that_waited_in_vain_gets_what_that_was_answered(
    client: httpx.Client, tmp_path: Path
) -> None:
    key, gated = str(uuid4()), {"model": "gated", "input": {"folder": str(tmp_path), "name": "a"}}
    first = post(client, key, gated, Prefer="wait=2")
    (tmp_path / "open").touch()
    assert (first.status_code, first.json()["status"]) == (202, "running")
    ended(client, first.json()["id"])
    repeat = post(client, key, gated)
    assert (repeat.status_code, repeat.content) == (202, first.content)


def test_a_batch_and_a_large_input_are_stored_once(client: httpx.Client) -> None:
    key = str(uuid4())
    batch = {"model": "echo", "inputs": [{"value": 1}, {"wrong": 1}, {"value": "x" * 100_000}]}
    first, repeat = (post(client, key, batch, "/v1/jobs:batch") for _ in range(2))
    assert (repeat.status_code, repeat.content) == (202, first.content)
    assert ["id" in each for each in first.json()["data"]] == [True, False, True]
    all_refused = {"model": "echo", "inputs": [{"wrong": 1}]}
    first, repeat = (post(client, str(uuid4()), all_refused, "/v1/jobs:batch") for _ in range(2))
    assert repeat.json() == first.json()


def test_a_retry_is_made_once(client: httpx.Client) -> None:
    key, id = str(uuid4()), ended(client, post(client, str(uuid4())).json()["id"])["id"]
    first, repeat = (
        client.post(f"/v1/jobs/{id}/retry", headers={"Idempotency-Key": key, "Prefer": "wait=30"}) for _ in range(2)
    )
    assert (first.status_code, first.json()["retry_of"]) == (200, id)
    assert (repeat.status_code, repeat.content) == (200, first.content)
    assert repeat.headers["idempotency-replayed"] == "true"


def test_while_the_first_is_in_flight_a_repeat_is_told_to_come_back(client: httpx.Client, system: Local) -> None:
    key = str(uuid4())
    with psycopg.connect(system.ps()["postgres"]["url"]) as first:
        first.execute(
            "INSERT INTO idempotency (tenant, method, path, key, fingerprint, status, body)"
            " VALUES (1, 'POST', '/v1/jobs', %s, '', 202, '')",
            [key],
        )
        early = post(client, key)
        assert (early.status_code, early.json()["code"]) == (409, "idempotency_in_flight")
        assert early.headers["retry-after"] == "1"
        first.rollback()
    assert post(client, key).status_code == 202


@pytest.mark.parametrize("key", ["", '""', '"open', "two words", "x" * 256, '"' + "x" * 256 + '"', "caf\u00e9"])
def test_what_is_no_key(client: httpx.Client, key: str) -> None:
    answer = client.post("/v1/jobs", json=JOB, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


def test_two_keys_are_none(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json=JOB, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    assert answer.status_code == 400
