"""Jobs from HTTP through a real worker to their result."""

import http.client
import json
import re
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.conftest import KEY
from tests.local import Local, ended, wait_until
from tundish.ids import from_text

JOB_FIELDS = (
    "id model version status cancel_requested output output_type output_size error progress attempt priority metadata"
    " created_at started_at finished_at expires_at retry_of batch shadow_of timings worker urls"
).split()


def submit(client: httpx.Client, model: str, input: Any, **options: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"model": model, "input": input, **options})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


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


def test_prefer_wait_answers_202_where_the_job_does_not_end_in_time(client: httpx.Client, tmp_path: Path) -> None:
    gate = {"folder": str(tmp_path), "name": "a"}
    answer = client.post("/v1/jobs", json={"model": "gated", "input": gate}, headers={"Prefer": "wait=2"})
    assert answer.status_code == 202
    # What it is after the wait, and not what it was when it was taken.
    assert (answer.json()["status"], answer.json()["attempt"]) == ("running", 1)
    assert answer.headers["location"] == answer.json()["urls"]["self"]
    (tmp_path / "open").touch()
    assert ended(client, answer.json()["id"])["status"] == "succeeded"


@pytest.mark.parametrize(
    "value",
    ["a\0b", "\u2028\U0001f600é", "x" * 300_000, 1e308, -0.0, 12345678901234567890, {"": {"\0": []}}],
    ids=["nul", "unicode", "large", "double", "minus zero", "64 bits", "empty key"],
)
def test_inputs_are_carried_bit_for_bit(client: httpx.Client, value: Any) -> None:
    raw = json.dumps({"value": value}, indent=3).encode()
    body = b'{"model": "echo", "input": ' + raw + b"}"
    id = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"}).json()["id"]
    assert client.get(f"/v1/jobs/{id}/input", follow_redirects=True).content == raw
    job = ended(client, id)
    assert job["status"] == "succeeded", job
    assert client.get(f"/v1/jobs/{id}/result", follow_redirects=True).json() == {"value": value}


def test_an_integer_may_be_written_as_a_number_with_a_fraction_of_nothing(client: httpx.Client) -> None:
    raw = b'{"text": "1.0", "count": 1e2, "share": 0.25, "tags": [], "inner": {"flag": true}}'
    id = client.post("/v1/models/typed/jobs", content=raw, headers={"content-type": "application/json"}).json()["id"]
    output = ended(client, id)["output"]
    assert (output["text"], output["count"], output["share"]) == ("1.0", 100, 0.25)


@pytest.mark.parametrize("over", [0, 1])
def test_payloads_up_to_a_size_lie_in_their_row(client: httpx.Client, over: int) -> None:
    most = 65_536  # TUNDISH_INLINE_MAX
    value = {"value": "y" * (most + over - len('{"value":""}'))}
    job = ended(client, submit(client, "echo", value)["id"])
    assert (job["output"], job["output_size"]) == (None if over else value, most + over)
    for call in ("result", "input"):
        answer = client.get(f"/v1/jobs/{job['id']}/{call}")
        assert answer.status_code == (307 if over else 200)
        assert client.get(answer.url, follow_redirects=True).json() == value


def test_large_outputs_lie_in_blobs_behind_a_signed_url(client: httpx.Client) -> None:
    id = submit(client, "echo", {"value": "y" * 200_000})["id"]
    job = ended(client, id)
    assert job["output"] is None
    assert job["output_size"] == len('{"value":""}') + 200_000
    answer = client.get(f"/v1/jobs/{id}/result")
    assert answer.status_code == 307
    url = answer.headers["location"]
    with httpx.Client(base_url=client.base_url, trust_env=False) as anybody:
        assert anybody.get(url).json() == {"value": "y" * 200_000}
        assert anybody.get(url).headers["content-type"] == "application/json"
        assert anybody.get(url.replace("output", "input")).status_code == 401
        assert anybody.get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 401
        assert anybody.get(re.sub("expires=[0-9]+", "expires=99999999999", url)).status_code == 401


def test_bytes_go_in_and_out_with_their_content_type(client: httpx.Client) -> None:
    answer = client.post("/v1/models/octets/jobs", content=b"\x00\xff abc", headers={"content-type": "image/png"})
    assert answer.status_code == 202, answer.text
    id = answer.json()["id"]
    shown = client.get(f"/v1/jobs/{id}/input")
    assert (shown.content, shown.headers["content-type"]) == (b"\x00\xff abc", "image/png")
    job = ended(client, id)
    assert (job["output"], job["output_type"], job["output_size"]) == (None, "application/octet-stream", 6)
    assert client.get(f"/v1/jobs/{id}/result").content == b"cba \xff\x00"


@pytest.mark.parametrize(("version", "also"), [("1.1", "close"), ("1.0", "TE")])
def test_who_offers_http_2_and_hangs_up_then_is_answered(system: Local, version: str, also: str) -> None:
    head = f"GET /healthz HTTP/{version}\r\nHost: x\r\nConnection: {also}, Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with socket.create_connection(("127.0.0.1", system.port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.getheader("connection")) == (200, "close")


@pytest.mark.parametrize("size", [4, 100_000], ids=["in its row", "in a blob"])
def test_a_text_of_another_charset_keeps_its_content_type(client: httpx.Client, size: int) -> None:
    body = b"caf\xe9" * (size // 4)
    answer = client.post("/v1/models/octets/jobs", content=body, headers={"content-type": "text/csv"})
    shown = client.get(f"/v1/jobs/{answer.json()['id']}/input", follow_redirects=True)
    assert (shown.content, shown.headers["content-type"]) == (body, "text/csv")


@pytest.mark.parametrize("cut", [None, 0, 20], ids=["at once", "head first", "a part first"])
def test_who_would_rather_speak_http_2_is_answered_in_http_1(system: Local, cut: int | None) -> None:
    """As clients in Java ask at their first request."""
    body = b'{"model": "echo", "input": {"value": 1}}'
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        f"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", system.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):  # the connection stays good
            pieces = [head + body] if cut is None else [head + body[:cut], body[cut:]]
            for piece in pieces:
                connection.sendall(piece)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            shown = answer.read()
            assert (answer.status, json.loads(shown).get("status")) == (202, "queued"), shown


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


def test_lists_are_newest_first_in_pages(client: httpx.Client) -> None:
    inputs = [{"value": index} for index in range(5)]
    body: dict[str, Any] = {"model": "echo", "inputs": inputs, "metadata": {"list": "pages"}}
    ids = [each["id"] for each in client.post("/v1/jobs:batch", json=body).json()["data"]]
    for id in ids:
        ended(client, id)
    asked: dict[str, Any] = {"metadata.list": "pages", "limit": 2, "model": "echo@1", "status": "succeeded"}
    found: list[str] = []
    cursor = None
    for _ in range(100):
        page = client.get("/v1/jobs", params={**asked, **({"cursor": cursor} if cursor else {})}).json()
        assert len(page["data"]) <= 2
        found += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ids[::-1]
    early = client.get("/v1/jobs", params={**asked, "created_before": "2020-01-01T00:00:00Z"}).json()
    assert early == {"data": [], "next_cursor": None}
    open_ended = {"created_after": "0001-01-01T00:00:00Z", "created_before": "9999-12-31T23:59:59+00:00"}
    assert client.get("/v1/jobs", params={**asked, **open_ended}).json()["data"]


def test_a_list_has_20_jobs_unless_it_says_otherwise_of_a_time_that_it_may_name(client: httpx.Client) -> None:
    body: dict[str, Any] = {"model": "echo", "metadata": {"list": "times"}}
    made: list[list[dict[str, Any]]] = []
    for count in (61, 40):
        inputs = [{"value": index} for index in range(count)]
        data = client.post("/v1/jobs:batch", json={**body, "inputs": inputs}).json()["data"]
        made.append([ended(client, each["id"]) for each in data])

    def listed(**asked: Any) -> dict[str, Any]:
        page: dict[str, Any] = client.get("/v1/jobs", params={"metadata.list": "times", **asked}).json()
        return page

    first, second = made
    everything = (second[::-1] + first[::-1])[:100]
    assert listed()["data"] == everything[:20]
    page = listed(limit=100)
    assert page["data"] == everything
    assert listed(limit=100, cursor=page["next_cursor"]) == {"data": first[:1], "next_cursor": None}
    assert listed(limit=100, created_before=second[0]["created_at"])["data"] == first[::-1]
    assert listed(limit=100, created_after=first[-1]["created_at"])["data"] == second[::-1]


def test_a_time_may_lie_within_the_millisecond_of_a_job(client: httpx.Client) -> None:
    run = {"metadata.run": uuid4().hex}
    job = client.post("/v1/models/echo/jobs", json={"value": 1}, params=run).json()
    made = datetime.fromisoformat(job["created_at"])
    for microseconds, before, after in ((-1, 0, 1), (0, 0, 0), (1, 1, 0), (999, 1, 0)):
        at = (made + timedelta(microseconds=microseconds)).isoformat()
        for name, count in (("created_before", before), ("created_after", after)):
            assert len(client.get("/v1/jobs", params={**run, name: at}).json()["data"]) == count, (microseconds, name)


def test_a_long_poll_waits_for_a_minute_at_most_and_says_so(client: httpx.Client) -> None:
    answer = client.get(submit(client, "echo", {"value": 1})["urls"]["self"], params={"wait": 61})
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("succeeded", "wait=60")


def test_whatever_is_got_has_a_head(client: httpx.Client) -> None:
    job = ended(client, submit(client, "echo", {"value": 1})["id"])
    here = job["urls"]["self"]
    for path in (here, f"{here}/result", f"{here}/input", "/v1/jobs?limit=1", "/v1/models", "/v1/workers"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]


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


@pytest.mark.parametrize(
    ("range", "status", "piece"),
    [
        ("bytes=2-6", 206, b"value"),
        ("bytes=-3", 206, b'x"}'),
        ("bytes=100012-, 2-6", 206, b"value"),
        ("bytes=6-2", 200, None),
        ("bytes=", 200, None),
        ("lines=0-1", 200, None),
    ],
)
def test_a_part_of_a_large_result_is_served_and_what_is_no_range_is_none(
    client: httpx.Client, range: str, status: int, piece: bytes | None
) -> None:
    job = ended(client, submit(client, "echo", {"value": "x" * 100_000})["id"])
    got = client.get(client.get(job["urls"]["result"]).headers["location"], headers={"Range": range})
    assert got.status_code == status
    assert got.content == (piece or b'{"value":"%b"}' % (b"x" * 100_000))


def test_a_part_behind_the_end_of_a_result_is_a_problem(client: httpx.Client) -> None:
    job = ended(client, submit(client, "echo", {"value": "x" * 100_000})["id"])
    location = client.get(job["urls"]["result"]).headers["location"]
    refused = client.get(location, headers={"Range": "bytes=100012-"})
    assert (refused.status_code, refused.headers["content-type"]) == (416, "application/problem+json")
    assert refused.json()["code"] == "range_not_satisfiable"


def test_the_document_tells_of_metadata_in_a_query(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for call in (paths["/v1/jobs"]["get"], paths["/v1/models/{model}/jobs"]["post"]):
        assert "metadata.KEY" in {each["name"] for each in call["parameters"]}
    query = {"metadata.KEY": "as it stands there"}
    job = client.post("/v1/models/echo/jobs", json={"value": 1}, params=query).json()
    assert job["metadata"] == {"KEY": "as it stands there"}
    assert [each["id"] for each in client.get("/v1/jobs", params=query).json()["data"]] == [job["id"]]
