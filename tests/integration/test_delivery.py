"""Webhooks from a job's end to a real receiver, signed: to a job's own URL and to registered endpoints."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.local import wait_until
from tests.receiver import Answer, Received, Receiver, listening

ENDS = ["job.succeeded", "job.failed", "job.canceled"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as receiver:
        yield receiver


@pytest.fixture
def register(client: httpx.Client, receiver: Receiver) -> Iterator[Any]:
    """Registers endpoints of the receiver, by their paths, for as long as the test runs."""
    made: list[str] = []

    def register(path: str, events: list[str] | None = None) -> dict[str, Any]:
        answer = client.post("/v1/webhooks", json={"url": receiver.url(path), "events": events or ENDS})
        assert answer.status_code == 201, answer.text
        made.append(answer.json()["id"])
        return dict(answer.json())

    yield register
    for id in made:
        client.delete(f"/v1/webhooks/{id}")


def default_secret(client: httpx.Client) -> str:
    return str(client.get("/v1/webhooks/default").json()["secret"])


def verify(secret: str, received: Received) -> dict[str, Any]:
    """By the reference library."""
    return dict(Webhook(secret).verify(received.body, received.headers))


def echo(client: httpx.Client, **options: Any) -> dict[str, Any]:
    job = {"model": "echo", "input": {"value": 1}, **options}
    return dict(client.post("/v1/jobs", json=job, headers={"Prefer": "wait=30"}).json())


def log(client: httpx.Client, **asked: str) -> list[dict[str, Any]]:
    return list(client.get("/v1/deliveries", params=asked).json()["data"])


def settled(client: httpx.Client, status: str, **asked: str) -> dict[str, Any]:
    """The one delivery of the log, once its status is this."""
    return wait_until(lambda: next((each for each in log(client, **asked) if each["status"] == status), None), status)


@pytest.mark.parametrize(
    ("order", "event"), [("ok", "job.succeeded"), ("reject", "job.failed")], ids=["succeeded", "failed"]
)
def test_the_end_of_a_job_is_told_signed_and_once(
    client: httpx.Client, receiver: Receiver, order: str, event: str
) -> None:
    hook = receiver.url("/ok?of=this%2Fjob")
    job = client.post("/v1/jobs", json={"model": "moody", "input": {"do": order}, "webhook": hook}).json()
    received = receiver.get()
    told = verify(default_secret(client), received)
    assert (received.path, told["type"], list(told)) == ("/ok?of=this%2Fjob", event, ["type", "timestamp", "data"])
    assert told["data"] == client.get(f"/v1/jobs/{job['id']}").json()
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    delivery = settled(client, "delivered", job=job["id"])
    assert delivery["id"] == received.headers["webhook-id"]
    assert (delivery["endpoint"], delivery["job"], delivery["event"]) == (None, job["id"], event)
    [attempt] = delivery["attempts"]
    assert (set(attempt), attempt["status_code"]) == ({"at", "status_code", "error", "ms"}, 204)
    assert receiver.received.empty()
    with pytest.raises(WebhookVerificationError):
        verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", received)


@pytest.mark.parametrize("over", [0, 1])
def test_an_output_up_to_16_kib_is_told(client: httpx.Client, receiver: Receiver, over: int) -> None:
    value = {"value": "x" * (16_384 + over - len('{"value":""}'))}
    job = echo(client, input=value, webhook=receiver.url("/ok"), metadata={"k": "v" * 2047})
    told = json.loads(receiver.get().body)["data"]
    assert (job["output"], job["output_size"]) == (value, 16_384 + over)
    assert told == {**job, "output": None if over else value}


def test_a_canceled_job_tells_so(client: httpx.Client, receiver: Receiver, tmp_path: Path) -> None:
    gate = {"folder": str(tmp_path), "name": "a"}
    first = client.post("/v1/jobs", json={"model": "gated", "input": gate}).json()
    wait_until((tmp_path / "began").exists, "the first began")
    waiting = client.post("/v1/jobs", json={"model": "gated", "input": gate, "webhook": receiver.url("/ok")}).json()
    client.post(f"/v1/jobs/{waiting['id']}/cancel")
    assert json.loads(receiver.get().body)["type"] == "job.canceled"
    (tmp_path / "open").touch()
    assert client.get(f"/v1/jobs/{first['id']}?wait=30").json()["status"] == "succeeded"


def test_a_redirect_is_not_followed_and_a_failure_is_tried_again(client: httpx.Client, receiver: Receiver) -> None:
    receiver.answers["/moved"] = [Answer(302, {"location": "/ok"}), Answer(204)]
    job = echo(client, webhook=receiver.url("/moved"))
    first, second = receiver.get(), receiver.get()
    assert {first.path, second.path} == {"/moved"}
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) >= int(first.headers["webhook-timestamp"]) + 5
    for each in (first, second):
        verify(default_secret(client), each)
    delivery = settled(client, "delivered", job=job["id"])
    assert [each["status_code"] for each in delivery["attempts"]] == [302, 204]
    assert receiver.received.empty()


def test_nobody_hears_that_a_job_without_its_input_started(
    client: httpx.Client, receiver: Receiver, register: Any
) -> None:
    register("/all", ["job.started", *ENDS])
    asked = {"model": "echo", "input_url": receiver.url("/answers-no-GET")}
    job = client.post("/v1/jobs", json=asked, headers={"Prefer": "wait=30"}).json()
    assert job["error"]["code"] == "input_unavailable"
    assert [each["event"] for each in log(client, job=job["id"])] == ["job.failed"]


def test_410_ends_a_jobs_own_webhook(client: httpx.Client, receiver: Receiver) -> None:
    receiver.answers["/gone"] = [Answer(410)]
    job = echo(client, webhook=receiver.url("/gone"))
    delivery = settled(client, "dead", job=job["id"])
    assert [each["status_code"] for each in delivery["attempts"]] == [410]
    assert delivery["next_at"] is None


def test_an_endpoint_hears_of_what_it_subscribed_to(client: httpx.Client, receiver: Receiver, register: Any) -> None:
    all_of_it, failures = register("/all", ["job.started", *ENDS]), register("/failures", ["job.failed"])
    assert set(all_of_it) == {"id", "url", "events", "secret", "enabled"}
    job = echo(client)
    told = {}
    for _ in range(2):
        received = receiver.get()
        assert received.path == "/all"
        told[verify(all_of_it["secret"], received)["type"]] = json.loads(received.body)["data"]
    assert set(told) == {"job.started", "job.succeeded"}
    assert (told["job.started"]["id"], told["job.started"]["status"]) == (job["id"], "running")
    assert told["job.succeeded"] == client.get(f"/v1/jobs/{job['id']}").json()
    client.post("/v1/jobs", json={"model": "moody", "input": {"do": "reject"}})
    paths = [receiver.get() for _ in range(3)]
    assert sorted(each.path for each in paths) == ["/all", "/all", "/failures"]
    [failure] = [each for each in paths if each.path == "/failures"]
    assert verify(failures["secret"], failure)["type"] == "job.failed"
    found = log(client, endpoint=failures["id"])
    assert [(each["event"], each["endpoint"]) for each in found] == [("job.failed", failures["id"])]


def test_an_endpoint_is_shown_changed_and_deleted(client: httpx.Client, receiver: Receiver, register: Any) -> None:
    made = register("/a", ["job.failed", "job.failed", "job.succeeded"])
    secret = made.pop("secret")
    path = f"/v1/webhooks/{made['id']}"
    assert made == {
        "id": made["id"],
        "url": receiver.url("/a"),
        "events": ["job.succeeded", "job.failed"],
        "enabled": True,
    }
    assert secret.startswith("whsec_")
    assert client.get(path).json() == made
    assert made in client.get("/v1/webhooks").json()["data"]
    page = client.get("/v1/webhooks?limit=1").json()
    assert page["data"] == [made]
    changed = client.patch(path, json={"enabled": False, "events": ["job.canceled"]}).json()
    assert changed == {**made, "enabled": False, "events": ["job.canceled"]}
    assert client.patch(path, json={"url": receiver.url("/b"), "enabled": True}).json()["url"] == receiver.url("/b")
    assert client.delete(path).status_code == 204
    for gone in (client.get(path), client.delete(path), client.post(f"{path}/ping"), client.patch(path, json={})):
        assert (gone.status_code, gone.json()["code"]) == (404, "endpoint_not_found")


def test_a_ping_goes_the_way_of_all_webhooks(client: httpx.Client, receiver: Receiver, register: Any) -> None:
    made = register("/ping")
    answer = client.post(f"/v1/webhooks/{made['id']}/ping")
    received = receiver.get()
    assert answer.status_code == 202
    assert (answer.json()["id"], answer.json()["job"]) == (received.headers["webhook-id"], None)
    told = verify(made["secret"], received)
    assert (told["type"], told["data"]) == ("ping", {"endpoint": made["id"]})
    client.patch(f"/v1/webhooks/{made['id']}", json={"enabled": False})
    refused = client.post(f"/v1/webhooks/{made['id']}/ping")
    assert (refused.status_code, refused.json()["code"]) == (409, "endpoint_disabled")


def test_both_secrets_sign_during_a_rotation(client: httpx.Client, receiver: Receiver, register: Any) -> None:
    made = register("/rotate")
    rotated = client.post(f"/v1/webhooks/{made['id']}/rotate").json()
    assert rotated == {**made, "secret": rotated["secret"]}
    assert rotated["secret"] != made["secret"]
    client.post(f"/v1/webhooks/{made['id']}/ping")
    received = receiver.get()
    for secret in (made["secret"], rotated["secret"]):
        verify(secret, received)
    old = default_secret(client)
    new = client.post("/v1/webhooks/default/rotate").json()["secret"]
    assert (new != old, default_secret(client)) == (True, new)
    echo(client, webhook=receiver.url("/own"))
    own = next(each for each in (receiver.get() for _ in range(2)) if each.path == "/own")
    for secret in (old, new):
        verify(secret, own)


def test_410_disables_an_endpoint_and_a_replay_needs_it_enabled(
    client: httpx.Client, receiver: Receiver, register: Any
) -> None:
    receiver.answers["/leave"] = [Answer(410), Answer(204)]
    made = register("/leave", ["job.succeeded"])
    path = f"/v1/webhooks/{made['id']}"
    job = echo(client)
    first = receiver.get()
    delivery = settled(client, "dead", endpoint=made["id"], job=job["id"])
    wait_until(lambda: not client.get(path).json()["enabled"], "it is disabled")
    echo(client)
    assert len(log(client, endpoint=made["id"])) == 1, "nothing is written for a disabled endpoint"
    refused = client.post(f"/v1/deliveries/{delivery['id']}/replay")
    assert (refused.status_code, refused.json()["code"]) == (409, "endpoint_disabled")
    client.patch(path, json={"enabled": True})
    replayed = client.post(f"/v1/deliveries/{delivery['id']}/replay")
    assert replayed.status_code == 202
    assert (replayed.json()["id"], replayed.json()["status"]) == (delivery["id"], "pending")
    again = receiver.get()
    assert again.headers["webhook-id"] == first.headers["webhook-id"]
    assert again.body == first.body
    delivered = settled(client, "delivered", endpoint=made["id"])
    assert [each["status_code"] for each in delivered["attempts"]] == [410, 204]
    assert delivered["id"] not in {each["id"] for each in log(client, status="dead")}


def test_410_of_the_url_before_does_not_disable_an_endpoint_that_has_moved(
    client: httpx.Client, receiver: Receiver, register: Any
) -> None:
    receiver.answers["/hang/gone"] = [Answer(410)]
    made = register("/hang/gone", ["job.succeeded"])
    path = f"/v1/webhooks/{made['id']}"
    echo(client)
    assert receiver.get().path == "/hang/gone"
    client.patch(path, json={"url": receiver.url("/ok")})
    receiver.opened.set()
    settled(client, "dead", endpoint=made["id"])
    job = echo(client)
    assert receiver.get().path == "/ok"
    settled(client, "delivered", endpoint=made["id"], job=job["id"])
    assert client.get(path).json()["enabled"]


def test_retry_after_is_honoured(client: httpx.Client, receiver: Receiver) -> None:
    receiver.answers["/busy"] = [Answer(503, {"retry-after": "3600"})]
    job = echo(client, webhook=receiver.url("/busy"))
    delivery = wait_until(
        lambda: next((each for each in log(client, job=job["id"]) if each["attempts"]), None), "tried"
    )
    assert delivery["status"] == "pending"
    assert delivery["next_at"][:13] > delivery["attempts"][0]["at"][:13]


def test_one_that_hangs_holds_up_nobody(client: httpx.Client, receiver: Receiver, register: Any) -> None:
    hanging, quick = register("/hang"), register("/quick")
    inputs = [{"value": n} for n in range(100)]
    client.post("/v1/jobs:batch", json={"model": "echo", "inputs": inputs})
    paths: list[str] = []
    while paths.count("/quick") < len(inputs):
        paths.append(receiver.get(10).path)
    assert paths.count("/hang") <= 2, "it has a cap of its own"
    waiting = log(client, endpoint=hanging["id"], status="pending")
    assert waiting
    client.delete(f"/v1/webhooks/{hanging['id']}")
    receiver.opened.set()
    dead = settled(client, "dead", endpoint=hanging["id"])
    assert dead["attempts"][-1]["error"] == "not sent: the endpoint is disabled or was deleted"
    assert len({each["id"] for each in log(client, endpoint=quick["id"], status="delivered")}) > 0


def test_beside_one_that_hangs_one_that_drips_and_one_that_fails_all_others_hear_soon(
    client: httpx.Client, receiver: Receiver, register: Any
) -> None:
    receiver.answers["/fail"] = [Answer(500)]
    good = [f"/good/{number}" for number in range(97)]
    for path in ("/hang", "/drip", "/fail", *good):
        register(path)
    jobs = echoes(client, 10)
    assert arrived(receiver, len(jobs) * len(good), "/good") == {(path, job) for path in good for job in jobs}
    receiver.opened.set()


def test_a_hundred_that_hang_hold_up_nobody(client: httpx.Client, receiver: Receiver, register: Any) -> None:
    for _ in range(100):
        register("/hang")
    register("/good")
    jobs = echoes(client, 20)
    assert arrived(receiver, len(jobs), "/good") == {("/good", job) for job in jobs}
    receiver.opened.set()


def echoes(client: httpx.Client, count: int) -> list[str]:
    """The ids of new jobs."""
    answer = client.post("/v1/jobs:batch", json={"model": "echo", "inputs": [{"value": n} for n in range(count)]})
    return [each["id"] for each in answer.json()["data"]]


def arrived(receiver: Receiver, count: int, path: str, within: float = 30.0) -> set[tuple[str, str]]:
    """The paths that begin so and the jobs of the next `count` different webhooks that come there."""
    until, came = time.monotonic() + within, set[tuple[str, str]]()
    while len(came) < count:
        received = receiver.get(max(0.0, until - time.monotonic()))
        if received.path.startswith(path):
            came.add((received.path, json.loads(received.body)["data"]["id"]))
    return came


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"events": ["job.failed"]}, 422, "invalid_request", "/url"),
        ({"url": "https://example.com/"}, 422, "invalid_request", "/events"),
        ({"url": "https://example.com/", "events": []}, 422, "invalid_request", "/events"),
        ({"url": "https://example.com/", "events": ["job.done"]}, 422, "invalid_request", "/events/0"),
        ({"url": "https://10.0.0.1/", "events": ["job.failed"]}, 422, "invalid_request", "/url"),
        ({"url": "ftp://example.com/", "events": ["job.failed"]}, 422, "invalid_request", "/url"),
        ({"url": "https://example.com/", "events": ["job.failed"], "secret": "x"}, 422, "invalid_request", "/secret"),
        ([], 422, "invalid_request", ""),
    ],
)
def test_what_is_no_endpoint_is_refused(
    client: httpx.Client, body: object, status: int, code: str, pointer: str
) -> None:
    answer = client.post("/v1/webhooks", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "query", ["status=lost", "endpoint=job_1", "job=whe_1", "batch=job_1", "limit=0", "cursor=x", "color=red"]
)
def test_a_query_that_the_log_does_not_know_is_refused(client: httpx.Client, query: str) -> None:
    assert client.get(f"/v1/deliveries?{query}").status_code == 422


def test_a_delivery_that_is_none_is_not_replayed(client: httpx.Client) -> None:
    for id in ("whd_01h455vb4pex5vsknk084sn02q", "whd_none", "job_01h455vb4pex5vsknk084sn02q"):
        answer = client.post(f"/v1/deliveries/{id}/replay")
        assert (answer.status_code, answer.json()["code"]) == (404, "delivery_not_found")


def test_the_log_has_pages(client: httpx.Client, register: Any) -> None:
    made = register("/pages", ["job.canceled"])
    ids = [client.post(f"/v1/webhooks/{made['id']}/ping").json()["id"] for _ in range(3)]
    seen: list[str] = []
    cursor: str | None = None
    while len(seen) < 3:
        asked = {"endpoint": made["id"], "limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/deliveries", params=asked).json()
        seen += [each["id"] for each in page["data"]]
        cursor = page["next_cursor"]
    assert seen == ids[::-1]
