"""Webhooks from a job's end to a real receiver, signed."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import httpx
import psycopg
import pytest

from tests.local import Local, wait_until
from tundish import webhooks

Received = tuple[str, dict[str, str], bytes]


@pytest.fixture
def receiver() -> Iterator[tuple[str, "Queue[Received]"]]:
    """A server that answers 204 to /ok, 302 to /moved and 410 to /gone, and what it received."""
    received: Queue[Received] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.put((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response({"/moved": 302, "/gone": 410}.get(self.path, 204))
            self.send_header("location", "/ok")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", received
    server.shutdown()
    thread.join()
    server.server_close()


def deliveries(system: Local, job: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(system.ps()["postgres"]["url"]) as connection:
        return connection.execute(
            "SELECT status, attempts, body FROM deliveries WHERE convert_from(body, 'UTF8') LIKE %s", [f"%{job}%"]
        ).fetchall()


@pytest.mark.parametrize(
    ("order", "event"), [("ok", "job.succeeded"), ("reject", "job.failed")], ids=["succeeded", "failed"]
)
def test_the_end_of_a_job_is_told_signed_and_once(
    system: Local, client: httpx.Client, receiver: tuple[str, "Queue[Received]"], order: str, event: str
) -> None:
    url, received = receiver
    job = client.post("/v1/jobs", json={"model": "moody", "input": {"do": order}, "webhook": f"{url}/ok"}).json()
    path, headers, body = received.get(timeout=20)
    with psycopg.connect(system.ps()["postgres"]["url"]) as connection:
        [secret] = connection.execute("SELECT webhook_secret FROM tenants").fetchall()[0]
    webhooks.verify(secret, headers, body)
    told = json.loads(body)
    assert (path, told["type"], list(told)) == ("/ok", event, ["type", "timestamp", "data"])
    assert told["data"] == client.get(f"/v1/jobs/{job['id']}").json()
    assert headers["webhook-id"].startswith("whd_")
    wait_until(lambda: deliveries(system, job["id"])[0][0] == "delivered", "the delivery is settled")
    [(_, attempts, kept)] = deliveries(system, job["id"])
    assert kept == body
    assert [(set(each), each["status_code"]) for each in attempts] == [({"at", "status_code", "error", "ms"}, 204)]
    assert received.empty()


def test_a_canceled_job_tells_so(client: httpx.Client, receiver: tuple[str, "Queue[Received]"], tmp_path: Any) -> None:
    url, received = receiver
    gate = {"folder": str(tmp_path), "name": "a"}
    first = client.post("/v1/jobs", json={"model": "gated", "input": gate}).json()
    wait_until((tmp_path / "began").exists, "the first began")
    waiting = client.post("/v1/jobs", json={"model": "gated", "input": gate, "webhook": f"{url}/ok"}).json()
    client.post(f"/v1/jobs/{waiting['id']}/cancel")
    assert json.loads(received.get(timeout=20)[2])["type"] == "job.canceled"
    (tmp_path / "open").touch()
    assert client.get(f"/v1/jobs/{first['id']}?wait=30").json()["status"] == "succeeded"


@pytest.mark.parametrize(("path", "status"), [("/moved", "pending"), ("/gone", "dead")])
def test_redirects_are_not_followed_and_410_ends_it(
    system: Local, client: httpx.Client, receiver: tuple[str, "Queue[Received]"], path: str, status: str
) -> None:
    url, received = receiver
    job = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}, "webhook": url + path}).json()
    assert received.get(timeout=20)[0] == path
    wait_until(lambda: deliveries(system, job["id"])[0][1], "the attempt is written down")
    assert deliveries(system, job["id"])[0][0] == status
    assert received.empty()
