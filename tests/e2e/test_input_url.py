"""Inputs that lie at a URL, from a real server through a real worker."""

import gzip
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.e2e.test_uploads import forget_peak, peak
from tests.local import Local, ended, submit, wait_until
from tundish import store
from tundish.ids import new_uuid, to_text
from tundish.job import Priority
from tundish.media import JSON
from tundish.queue import Queue, send
from workers.fetch import TIMEOUT
from workers.waits import MOST

INPUT = b'{ "value": "from afar" }'
HUGE = os.urandom(1 << 20)
PATIENT = 30.0


@dataclass
class Origin:
    """A server of files, each (status, headers, body); /slow is held back until `gate` is set."""

    port: int
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        to = {"/moved": "/json", "/away": self.url("/json"), "/circle": "/circle"}
        refused = {"/inside": "http://10.0.0.1/", "/mapped": f"http://[::ffff:7f00:1]:{self.port}/canary"}
        if location := (to | refused).get(path):
            return 302, {"location": location}, b""
        return {
            "/json": (200, {"content-type": "application/json; charset=utf-8"}, INPUT),
            "/plain": (200, {}, INPUT),
            "/slow": (200, {"content-type": "application/json"}, INPUT),
            "/gzip": (200, {"content-encoding": "gzip", "content-type": "application/json"}, gzip.compress(INPUT)),
            "/twice": (200, {"content-type": "application/json"}, b'{"value": 1, "value": 2}'),
            "/unfit": (200, {"content-type": "application/json"}, b'{"wrong": 1}'),
            "/more": (200, {"content-type": "application/json"}, b'{"value": 1, "more": {"a": 1}}'),
            "/html": (200, {"content-type": "text/html"}, INPUT),
            "/png": (200, {"content-type": "image/png"}, b"\x00\xff abc"),
            "/huge": (200, {"content-type": "video/mp4"}, HUGE * 96),
            "/large": (200, {"content-type": "application/json"}, json.dumps({"value": "x" * 4_000_000}).encode()),
        }.get(path.partition("?")[0], (404, {}, b"none"))


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.asked.append(self.path)
            if self.path == "/slow":
                here.gate.wait(PATIENT)
            status, headers, body = here.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here = Origin(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield here
        here.gate.set()
        server.shutdown()
        thread.join()


def by_url(client: httpx.Client, url: str, model: str = "echo", **options: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"model": model, "input_url": url, **options})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


@pytest.mark.parametrize("path", ["/json", "/json?signature=a%2Fb|c;d", "/plain", "/moved", "/away", "/gzip"])
def test_the_worker_fetches_the_input(client: httpx.Client, origin: Origin, path: str) -> None:
    job = ended(client, by_url(client, origin.url(path))["id"])
    assert (job["status"], job["output"]) == ("succeeded", {"value": "from afar"}), job
    assert path in origin.asked  # as it was written, each character


def test_bytes_may_be_of_any_type(client: httpx.Client, origin: Origin) -> None:
    job = ended(client, by_url(client, origin.url("/png"), "octets")["id"])
    assert client.get(job["urls"]["result"]).content == b"cba \xff\x00"


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_model_of_files_gets_what_no_memory_should_hold(system: Local, client: httpx.Client, origin: Origin) -> None:
    worker = system.ps()["worker"]["pid"]
    before = forget_peak(worker)
    job = ended(client, by_url(client, origin.url("/huge"), "measured")["id"])
    grown = peak(worker) - before
    assert job["status"] == "succeeded", job
    sum = sha256()
    for _ in range(96):
        sum.update(HUGE)
    found = job["output"]
    assert (found["size"], found["sha256"], found["content_type"]) == (96 << 20, sum.hexdigest(), "video/mp4")
    assert grown < 32 << 20, grown
    wait_until(lambda: not Path(found["path"]).parent.exists(), "the batch's folder is removed")


def test_a_file_of_a_canceled_job_goes(client: httpx.Client, origin: Origin) -> None:
    origin.gate.clear()
    id = by_url(client, origin.url("/slow"), "measured")["id"]

    def lies() -> bool:
        return any(Path(tempfile.gettempdir()).glob(f"tundish-files-*/*/input-{id}"))

    wait_until(lies, "it is being fetched")
    assert client.post(f"/v1/jobs/{id}/cancel").json()["status"] == "canceled"
    origin.gate.set()
    wait_until(lambda: not lies(), "its file is removed")


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("/none", "input_unavailable", "404"),
        ("/html", "input_unavailable", "text/html"),
        ("/large", "input_unavailable", "over 4000000 bytes"),
        ("/circle", "input_unavailable", "redirects more than 5 times"),
        ("/inside", "input_unavailable", "not public"),
        ("/mapped", "input_unavailable", "not public"),
        ("/twice", "invalid_input", "duplicate key"),
        ("/unfit", "invalid_input", "not a field of the schema"),
    ],
)
def test_what_cannot_be_had_fails_its_job(
    client: httpx.Client, origin: Origin, path: str, code: str, says: str
) -> None:
    job = ended(client, by_url(client, origin.url(path))["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", code)
    assert job["error"]["retryable"] is (code == "input_unavailable")
    assert says in job["error"]["message"]
    assert "/canary" not in origin.asked


@pytest.mark.parametrize("path", ["/unfit", "/more"])
def test_what_does_not_fit_the_schema_is_told_as_at_submit(client: httpx.Client, origin: Origin, path: str) -> None:
    error = ended(client, by_url(client, origin.url(path))["id"])["error"]
    [_, _, body] = origin.answer(path)
    refused = client.post("/v1/models/echo/jobs", content=body, headers={"content-type": JSON}).json()
    assert (error["code"], error["message"]) == (refused["code"], refused["detail"])
    assert error["details"] == {"pointer": refused["errors"][0]["pointer"]}


def test_a_slow_url_delays_no_other_job(client: httpx.Client, origin: Origin) -> None:
    origin.gate.clear()
    slow = [by_url(client, origin.url("/slow"))["id"] for _ in range(8)]
    others = [by_url(client, origin.url("/json"))["id"], submit(client, "echo", {"value": 1})["id"]]
    assert [ended(client, id)["status"] for id in others] == ["succeeded"] * 2
    assert [client.get(f"/v1/jobs/{id}").json()["status"] for id in slow] == ["queued"] * 8
    origin.gate.set()
    assert [ended(client, id)["output"] for id in slow] == [{"value": "from afar"}] * 8


def test_more_slow_urls_than_are_fetched_at_once_delay_no_other_job(client: httpx.Client, origin: Origin) -> None:
    origin.gate.clear()
    slow = [by_url(client, origin.url("/slow"))["id"] for _ in range(2 * MOST + 2)]
    began = time.monotonic()
    assert ended(client, submit(client, "echo", {"value": 1})["id"])["status"] == "succeeded"
    assert time.monotonic() - began < TIMEOUT / 2
    origin.gate.set()
    assert [ended(client, id)["output"] for id in slow] == [{"value": "from afar"}] * len(slow)


def test_a_slow_url_holds_back_no_neighbour_of_its_batch(system: Local, client: httpx.Client, origin: Origin) -> None:
    origin.gate.clear()
    placed = [(origin.url("/slow"), None), (origin.url("/json"), None), (None, INPUT)]
    jobs = [
        store.NewJob(new_uuid(), 1, "echo", "1", Priority.NORMAL, 60.0, JSON, 0, body, input_url=url)
        for url, body in placed
    ]
    engine = store.engine(system.ps()["postgres"]["url"])
    with engine.begin() as connection:
        store.submit(connection, jobs)
    engine.dispose()
    # One message, so that they are one batch.
    with redis.Redis.from_url(system.ps()["valkey"]["url"]) as broker:
        send(broker, [(Queue("echo", "1", Priority.NORMAL), job.id) for job in jobs])
    slow, *others = [to_text("job", job.id) for job in jobs]
    for id in others:
        job = ended(client, id)
        assert (job["status"], job["timings"]["batch_size"]) == ("succeeded", 2)
    assert client.get(f"/v1/jobs/{slow}").json()["status"] == "queued"
    origin.gate.set()
    job = ended(client, slow)
    assert (job["output"], job["attempt"], job["timings"]["batch_size"]) == ({"value": "from afar"}, 1, 1)


def test_a_job_of_a_url_shows_it_and_is_retried_from_it(client: httpx.Client, origin: Origin) -> None:
    first = ended(client, by_url(client, origin.url("/none?token=1"))["id"])
    shown = client.get(f"/v1/jobs/{first['id']}/input")
    assert (shown.status_code, shown.headers["location"]) == (307, origin.url("/none?token=1"))
    again = ended(client, client.post(f"/v1/jobs/{first['id']}/retry").json()["id"])
    assert (again["retry_of"], again["error"]["code"]) == (first["id"], "input_unavailable")
    assert origin.asked.count("/none?token=1") == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/input"),
        ({"input": {"value": 1}, "input_url": "https://example.com/"}, "/input_url"),
        ({"input": None, "input_url": "https://example.com/"}, "/input_url"),
        ({"input_url": "http://10.0.0.1/"}, "/input_url"),
        ({"input_url": "https://user@example.com/"}, "/input_url"),
        ({"input_url": "https://example.com/\n"}, "/input_url"),
        ({"input_url": "https://example.com/\0"}, "/input_url"),
        ({"input_url": "https://example.com/" + "x" * 2048}, "/input_url"),
        ({"input_url": 1}, "/input_url"),
        ({"input_url": None}, "/input_url"),
    ],
)
def test_a_job_has_one_input_at_a_place_where_we_may_go(
    client: httpx.Client, body: dict[str, Any], pointer: str
) -> None:
    answer = client.post("/v1/jobs", json={"model": "echo", **body})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_batch_takes_inputs_alone(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs:batch", json={"model": "echo", "input_url": "https://example.com/"})
    assert answer.status_code == 422
