"""Jobs from HTTP through a real worker to their result."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.local import Local, ended, submit, wait_until
from tundish.ids import from_text

JOB_FIELDS = (
    "id model version status cancel_requested output output_type output_size error progress attempt priority metadata"
    " created_at started_at finished_at expires_at retry_of batch shadow_of timings worker urls"
).split()


def test_a_job_is_queued_with_every_field_of_the_contract(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}, "metadata": {"user": "7"}})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert list(job) == JOB_FIELDS
    assert re.fullmatch(r"job_[0-9a-hjkmnp-tv-z]{26}", job["id"])
    assert (job["status"], job["version"], job["priority"], job["attempt"]) == ("queued", "1", "normal", 0)
    assert job["metadata"] == {"user": "7"}
    assert list(job["timings"]) == ["queued_ms", "predict_ms", "total_ms", "batch_size"]
    assert list(job["urls"]) == ["self", "cancel", "result", "events"]


def test_a_job_succeeds_and_keeps_its_result(client: httpx.Client) -> None:
    job = ended(client, submit(client, "echo", {"value": [1, "two", None]})["id"])
    assert job["status"] == "succeeded"
    assert job["output"] == {"value": [1, "two", None]}
    assert job["output_type"] == "application/json"
    assert job["output_size"] == len('{"value":[1,"two",null]}')
    assert job["attempt"] == 1
    assert job["timings"]["batch_size"] >= 1
    assert job["worker"].startswith("wrk_")
    assert job["created_at"] <= job["finished_at"] <= job["expires_at"]
    assert client.get(job["urls"]["result"]).json() == job["output"]


@pytest.mark.parametrize("wait", ["100", "9223372036854775807"])
def test_prefer_wait_answers_with_the_finished_job(client: httpx.Client, wait: str) -> None:
    prefer = {"Prefer": f"wait={wait}"}
    answer = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}}, headers=prefer)
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=60"
    assert answer.json()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ('foo="a, wait=5, b"', None),
        ('foo; bar=", wait=5"', None),
        ('foo="\\", wait=5"', None),
        ('foo="a, wait=5', None),
        ('foo="a, b", wait=5', "wait=5"),
        ('foo="\\\\", wait="5"; a="b, c", bar', "wait=5"),
        ("respond-async,Wait = 5", "wait=5"),
    ],
)
def test_a_preference_in_quotes_is_none(client: httpx.Client, prefer: str, applied: str | None) -> None:
    job = {"model": "echo", "input": {"value": 1}}
    answer = client.post("/v1/jobs", json=job, headers={"Prefer": prefer})
    assert answer.headers.get("preference-applied") == applied


def test_prefer_wait_answers_202_where_the_job_does_not_end_in_time(client: httpx.Client, tmp_path: Path) -> None:
    gate = {"folder": str(tmp_path), "name": "a"}
    answer = client.post("/v1/jobs", json={"model": "gated", "input": gate}, headers={"Prefer": "wait=2"})
    assert answer.status_code == 202
    # What it is after the wait, and not what it was when it was taken.
    assert (answer.json()["status"], answer.json()["attempt"]) == ("running", 1)
    assert answer.headers["location"] == answer.json()["urls"]["self"]
    (tmp_path / "open").touch()
    assert ended(client, answer.json()["id"])["status"] == "succeeded"


def test_the_body_itself_is_the_input_with_options_in_the_query(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/models/echo/jobs", params={"priority": "high", "metadata.user": "7"}, json={"value": 5}
    ).json()
    assert (answer["priority"], answer["metadata"]) == ("high", {"user": "7"})
    assert ended(client, answer["id"])["output"] == {"value": 5}


def test_a_batch_answers_for_each_input_in_order(client: httpx.Client) -> None:
    inputs = [{"value": 0}, {"wrong": 1}, {"value": 2}]
    answer = client.post("/v1/jobs:batch", json={"model": "echo", "inputs": inputs})
    assert answer.status_code == 202
    first, refused, last = answer.json()["data"]
    message = "the input does not fit the schema of echo: /inputs/1/wrong: not a field of the schema"
    assert refused == {"error": {"code": "invalid_input", "message": message, "index": 1}}
    assert [ended(client, each["id"])["output"]["value"] for each in (first, last)] == [0, 2]


def test_a_batch_whose_inputs_are_all_refused_is_answered_for_each(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs:batch", json={"model": "echo", "inputs": [{"wrong": 1}] * 10_000})
    assert answer.status_code == 202
    assert [each["error"]["index"] for each in answer.json()["data"]] == list(range(10_000))


def test_a_thousand_jobs_succeed_in_batches(client: httpx.Client) -> None:
    inputs = [{"value": index} for index in range(1000)]
    data = client.post("/v1/jobs:batch", json={"model": "echo", "inputs": inputs}).json()["data"]
    jobs = [ended(client, each["id"]) for each in data]
    assert [job["output"]["value"] for job in jobs] == list(range(1000))
    assert max(job["timings"]["batch_size"] for job in jobs) == 64


def test_a_poisoned_item_fails_alone(client: httpx.Client) -> None:
    orders = ["ok", "raise", "ok", "reject", "nan", "ok"]
    inputs = [{"do": order} for order in orders]
    data = client.post("/v1/jobs:batch", json={"model": "moody", "inputs": inputs}).json()["data"]
    jobs = [ended(client, each["id"]) for each in data]
    codes = [job["error"] and job["error"]["code"] for job in jobs]
    assert codes == [None, "model_error", None, "rejected", "output_invalid", None]
    assert jobs[1]["error"] == {"code": "model_error", "message": "ValueError: told to", "retryable": False}
    answer = client.get(f"/v1/jobs/{data[1]['id']}/result")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_result")


def test_a_queued_job_is_canceled_at_once(client: httpx.Client, tmp_path: Path) -> None:
    blocking = submit(client, "gated", {"folder": str(tmp_path), "name": "first"})
    wait_until((tmp_path / "began").exists, "the first began")
    waiting = submit(client, "gated", {"folder": str(tmp_path), "name": "second"})
    answer = client.get(f"/v1/jobs/{waiting['id']}/result")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_finished")
    canceled = client.post(f"/v1/jobs/{waiting['id']}/cancel")
    assert canceled.status_code == 200
    assert (canceled.json()["status"], canceled.json()["cancel_requested"]) == ("canceled", True)
    (tmp_path / "open").touch()
    assert ended(client, blocking["id"])["status"] == "succeeded"
    again = client.post(f"/v1/jobs/{waiting['id']}/cancel").json()
    assert again == client.get(f"/v1/jobs/{waiting['id']}").json()
    assert again["status"] == "canceled"
    assert "second" not in (tmp_path / "began").read_text()


def test_a_cancel_wakes_who_waits(client: httpx.Client, tmp_path: Path) -> None:
    blocking = submit(client, "gated", {"folder": str(tmp_path), "name": "first"})
    wait_until((tmp_path / "began").exists, "the first began")
    running = client.get(f"/v1/jobs/{blocking['id']}").json()
    assert (running["status"], running["started_at"] is not None) == ("running", True)
    asked = client.post(f"/v1/jobs/{blocking['id']}/cancel").json()
    assert (asked["status"], asked["cancel_requested"]) == ("running", True)
    (tmp_path / "open").touch()
    assert ended(client, blocking["id"])["status"] in ("succeeded", "canceled")


def test_a_long_poll_waits_for_a_minute_at_most_and_says_so(client: httpx.Client) -> None:
    answer = client.get(submit(client, "echo", {"value": 1})["urls"]["self"], params={"wait": 61})
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("succeeded", "wait=60")


@pytest.mark.parametrize(("given", "seconds"), [({}, 86400), ({"expires_in": 604800}, 604800)])
def test_a_job_may_wait_for_a_day_and_up_to_the_retention(
    client: httpx.Client, given: dict[str, int], seconds: int
) -> None:
    job = submit(client, "echo", {"value": 1}, **given)
    assert abs(waits(job) - seconds) < 5


def waits(job: dict[str, Any]) -> float:
    """Seconds from when it was made to when it expires."""
    made, expires = (datetime.fromisoformat(job[name]) for name in ("created_at", "expires_at"))
    return (expires - made).total_seconds()


def test_a_job_that_has_ended_is_not_changed_by_a_cancel(client: httpx.Client) -> None:
    job = ended(client, submit(client, "echo", {"value": 1})["id"])
    answer = client.post(job["urls"]["cancel"])
    assert (answer.status_code, answer.json()) == (200, job)
    assert client.get(job["urls"]["self"]).json() == job


def test_the_catalog_says_what_is_served(client: httpx.Client) -> None:
    models = {model["name"]: model for model in client.get("/v1/models").json()["data"]}
    assert set(models) >= {"echo", "typed", "octets", "moody", "gated"}
    assert models["echo"] == client.get("/v1/models/echo").json()
    assert models["echo"]["aliases"] == {"default": {"weights": {"1": 100}, "shadow": None}}
    [version] = models["echo"]["versions"]
    assert version["limits"] == {"max_batch": 64, "max_wait": 0.005, "max_cost": None, "timeout": None}
    assert version["example"] == {"value": "hello"}
    assert len(version["workers"]) >= 1
    assert client.get("/v1/models/echo/versions/1").json() == {"name": "echo", **version}


@pytest.mark.parametrize("model", ["echo", "echo@1", "echo:default"])
def test_a_model_is_named_by_version_or_alias(client: httpx.Client, model: str) -> None:
    assert ended(client, submit(client, model, {"value": 1})["id"])["version"] == "1"


def test_figures_for_prometheus(client: httpx.Client, tmp_path: Path) -> None:
    gate = {"folder": str(tmp_path), "name": "a"}
    jobs = [submit(client, "gated", gate) for _ in range(2)]
    wait_until((tmp_path / "began").exists, "the first began")
    figures = client.get("/metrics").text
    (tmp_path / "open").touch()
    for job in jobs:
        ended(client, job["id"])
    assert re.search(r'^tundish_http_requests_total\{method="POST",status="202"\} [1-9]', figures, re.MULTILINE)
    assert "# TYPE tundish_jobs_queued gauge" in figures
    assert re.search(r'^tundish_workers\{pool="default",state="(busy|idle)"\} [1-9]', figures, re.MULTILINE)
    assert 'tundish_jobs_per_second{pool="default"}' in figures
    for state in ("fresh", "retried", "dead"):
        assert re.search(rf'^tundish_webhooks\{{state="{state}"\}} [0-9]', figures, re.MULTILINE)
        assert f'tundish_oldest_webhook_seconds{{state="{state}"}}' in figures


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_retry_is_a_new_job_with_the_same_input_and_options(client: httpx.Client, system: Local, size: int) -> None:
    unseen = {"webhook": "http://127.0.0.1:9/hook", "timeout": 100, "sticky_key": "a"}
    options = {"priority": "high", "metadata": {"for": "retry"}, "expires_in": 1000, **unseen}
    first = submit(client, "echo", {"value": "x" * size}, **options)
    ended(client, first["id"])
    answer = client.post(f"/v1/jobs/{first['id']}/retry")
    assert answer.status_code == 202
    again = ended(client, answer.json()["id"])
    assert again["id"] != first["id"]
    assert (again["retry_of"], again["priority"], again["metadata"]) == (first["id"], "high", {"for": "retry"})
    assert answer.headers["location"].endswith(again["id"])
    assert again["expires_at"] > first["expires_at"]
    assert abs(waits(again) - 1000) < 5
    with psycopg.connect(system.ps()["postgres"]["url"]) as database:
        taken = "SELECT webhook, timeout, sticky_key FROM requests WHERE id = %s"
        assert database.execute(taken, [from_text("job", again["id"])]).fetchall() == [tuple(unseen.values())]
    assert client.delete(f"/v1/jobs/{first['id']}").status_code == 204
    kept = client.get(f"/v1/jobs/{again['id']}/input", follow_redirects=True).json()
    assert kept == {"value": "x" * size}


def test_a_deleted_job_is_gone_with_its_payloads(client: httpx.Client) -> None:
    job = submit(client, "echo", {"value": "x" * 100_000})
    ended(client, job["id"])
    blob = client.get(f"/v1/jobs/{job['id']}/result").headers["location"]
    assert client.get(blob).status_code == 200
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert client.get(blob).status_code == 404
    for call in ("", "/result", "/input"):
        assert client.get(f"/v1/jobs/{job['id']}{call}").status_code == 404
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 404
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 404


def test_what_has_not_ended_is_neither_retried_nor_deleted(client: httpx.Client, tmp_path: Path) -> None:
    job = submit(client, "gated", {"folder": str(tmp_path), "name": "first"})
    for answer in (client.post(f"/v1/jobs/{job['id']}/retry"), client.delete(f"/v1/jobs/{job['id']}")):
        assert (answer.status_code, answer.json()["code"]) == (409, "not_finished")
    (tmp_path / "open").touch()
    ended(client, job["id"])


def test_the_document_tells_of_metadata_in_a_query(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for call in (paths["/v1/jobs"]["get"], paths["/v1/models/{model}/jobs"]["post"]):
        assert "metadata.KEY" in {each["name"] for each in call["parameters"]}
    query = {"metadata.KEY": "as it stands there"}
    job = client.post("/v1/models/echo/jobs", json={"value": 1}, params=query).json()
    assert job["metadata"] == {"KEY": "as it stands there"}
    assert [each["id"] for each in client.get("/v1/jobs", params=query).json()["data"]] == [job["id"]]
