"""A job's events over HTTP, from a real worker."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from tests.conftest import KEY
from tests.local import Local, wait_until
from tests.sse import Event, all_events, follow, parse


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A system whose processes a test may end."""
    local = Local(tmp_path_factory.mktemp("events"), {"TUNDISH_LEASE": "2", "TUNDISH_MODELS": "tests.models:Teller"})
    with local.running():
        yield local


@pytest.fixture
def own(local: Local) -> Iterator[httpx.Client]:
    with local.client() as client:
        yield client


def submit(client: httpx.Client, folder: Path, *pieces: Any, hold: int | None = None, times: int = 1) -> str:
    input = {"folder": str(folder), "pieces": list(pieces), "hold": hold, "times": times}
    answer = client.post("/v1/jobs", json={"model": "teller", "input": input})
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    return id


def pieces(events: list[Event]) -> list[Any]:
    return [each.piece for each in events if each.event == "output"]


def test_events_come_while_the_job_runs_and_its_end_is_the_last(client: httpx.Client, tmp_path: Path) -> None:
    id = submit(client, tmp_path, "a", {"b": [1, "\u2028"]}, "c", hold=2)
    with follow(client, id) as events:
        told = [next(events)]
        while len(pieces(told)) < 2:
            told.append(next(events))
        first, began, *said = told if told[1].event == "status" else (told[0], *told)
        assert first.data["id"] == id
        assert (began.event, began.data["status"]) == ("status", "running")
        assert [(each.event, each.data) for each in said if each.event != "progress"] == [
            ("log", {"text": "piece 0"}),
            ("output", {"piece": "a", "attempt": 1}),
            ("log", {"text": "piece 1"}),
            ("output", {"piece": {"b": [1, "\u2028"]}, "attempt": 1}),
        ]
        job = wait_until(lambda: progressed(client.get(f"/v1/jobs/{id}").json()), "the progress is told")
        assert (job["status"], job["progress"]) == ("running", 2 / 3)
        assert client.get(f"/v1/jobs/{id}?wait=0.01").json()["progress"] == 2 / 3
        listed = client.get("/v1/jobs?model=teller&limit=1").json()["data"]
        assert [(each["id"], each["progress"]) for each in listed] == [(id, 2 / 3)]
        (tmp_path / "open").touch()
        rest = list(events)
    assert pieces(rest) == ["c"]
    assert [each.data for each in (*said, *rest) if each.event == "progress"][-1] == {"progress": 1.0}
    assert rest[-1].event == "status"
    assert rest[-1].data == client.get(f"/v1/jobs/{id}").json()
    assert rest[-1].data["status"] == "succeeded"


def progressed(job: dict[str, Any]) -> dict[str, Any] | None:
    return job if job["progress"] == 2 / 3 else None


def test_a_job_that_has_ended_repeats_its_attempt_and_resumes_anywhere(client: httpx.Client, tmp_path: Path) -> None:
    id = submit(client, tmp_path, *"abcde")
    client.get(f"/v1/jobs/{id}?wait=30")
    events = all_events(client, id)
    assert [events[0].event, events[-1].event] == ["status", "status"]
    assert pieces(events) == list("abcde")
    for place, event in enumerate(events[:-1]):
        assert all_events(client, id, event.id)[1:] == events[place + 1 :] or place == len(events) - 2
    [alone] = all_events(client, id, events[-2].id)
    assert alone == events[-1]
    after = client.get(f"/v1/jobs/{id}/events", headers={"last-event-id": events[-1].id})
    assert (after.status_code, after.content) == (204, b"")


def test_a_job_that_said_nothing_has_its_end_alone(client: httpx.Client) -> None:
    job = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}}, headers={"Prefer": "wait=30"}).json()
    answer = client.get(job["urls"]["events"])
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    [event] = all_events(client, job["id"])
    assert event == ("end", "status", job)
    assert client.head(job["urls"]["events"]).status_code == 200


def test_what_cannot_be_followed_is_refused(client: httpx.Client) -> None:
    job = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}}).json()
    for resumed in ("x", "1", "end1", "-1-2"):
        answer = client.get(job["urls"]["events"], headers={"last-event-id": resumed})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert client.get(job["urls"]["events"] + "?since=1").status_code == 422
    gone = job["urls"]["events"].replace(job["id"], "job_" + "0" * 26)
    for resumed in ("", "end"):
        assert client.get(gone, headers={"last-event-id": resumed}).json()["code"] == "job_not_found"


def test_a_deleted_job_has_no_events(client: httpx.Client, system: Local, tmp_path: Path) -> None:
    id = submit(client, tmp_path, "a")
    client.get(f"/v1/jobs/{id}?wait=30")
    with redis.Redis.from_url(system.ps()["valkey"]["url"]) as valkey:
        before = valkey.keys("tundish:events:*")
        assert client.delete(f"/v1/jobs/{id}").status_code == 204
        assert len(valkey.keys("tundish:events:*")) == len(before) - 1
    assert client.get(f"/v1/jobs/{id}/events").status_code == 404


def test_a_killed_worker_voids_what_it_said(own: httpx.Client, tmp_path: Path) -> None:
    id = submit(own, tmp_path, "a", "b", "c", hold=2)
    with follow(own, id) as events:
        first = [next(events)]
        while pieces(first) != ["a", "b"]:
            first.append(next(events))
        os.kill(int((tmp_path / "began").read_text()), signal.SIGKILL)
        (tmp_path / "open").touch()
        second = list(events)
    assert [each.data["attempt"] for each in second if each.event == "output"] == [2, 2, 2]
    assert pieces(second) == ["a", "b", "c"]
    assert second[-1].data["output"] == {"value": ["a", "b", "c"]}
    # Who comes later is told of no other.
    assert pieces(all_events(own, id)) == ["a", "b", "c"]
    assert pieces(all_events(own, id, first[-1].id)) == ["a", "b", "c"]


def test_one_of_a_batch_is_cancelled_and_its_neighbour_tells_all(client: httpx.Client, tmp_path: Path) -> None:
    input = {"folder": str(tmp_path), "pieces": ["a", "b", "c"], "hold": 1}
    batch = client.post("/v1/jobs:batch", json={"model": "teller", "inputs": [input, input]}).json()["data"]
    one, other = (each["id"] for each in batch)
    with ThreadPoolExecutor() as pool, follow(client, one) as events:
        while next(events).event != "output":
            pass
        neighbour = pool.submit(all_events, client, other)
        asked = client.post(f"/v1/jobs/{one}/cancel").json()
        assert (asked["status"], asked["cancel_requested"]) == ("running", True)
        wait_until((tmp_path / "let go").exists, "the model let go of it")
        assert client.get(f"/v1/jobs/{one}?wait=0.01").json()["status"] == "running"
        (tmp_path / "open").touch()
        left, told = list(events), neighbour.result()
    assert (left[-1].data["status"], left[-1].data["output"]) == ("canceled", None)
    assert (told[-1].data["status"], pieces(told)) == ("succeeded", ["a", "b", "c"])
    assert [each[-1].data["timings"]["batch_size"] for each in (left, told)] == [2, 2]


def test_a_cancel_ends_the_stream_of_a_job_that_waits(client: httpx.Client, tmp_path: Path) -> None:
    running = submit(client, tmp_path, "a", hold=0)
    wait_until((tmp_path / "began").exists, "the first began")
    waiting = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}}).json()["id"]
    with follow(client, waiting) as events:
        assert next(events).data["status"] == "queued"
        client.post(f"/v1/jobs/{waiting}/cancel")
        [end] = events
    assert end.data["status"] == "canceled"
    (tmp_path / "open").touch()
    client.get(f"/v1/jobs/{running}?wait=30")


def test_who_does_not_read_slows_no_worker_fills_no_memory_and_holds_up_no_restart(
    own: httpx.Client, local: Local, tmp_path: Path
) -> None:
    api = psutil.Process(local.ps()["api"]["pid"])
    id = submit(own, tmp_path, "x" * 15_000, hold=0, times=400)
    request = f"GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with ExitStack() as stack:
        readers = [stack.enter_context(socket.create_connection(("127.0.0.1", local.port))) for _ in range(200)]
        for reader in readers[1:]:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for reader in readers:
            reader.settimeout(30)
            reader.sendall(request)
            assert reader.recv(12) == b"HTTP/1.1 200"
        before = api.memory_info().rss
        (tmp_path / "open").touch()
        assert own.get(f"/v1/jobs/{id}?wait=30").json()["status"] == "succeeded"
        late = stack.enter_context(readers[0].makefile("rb"))
        assert any(line == b"id: 1-401\n" for line in late)
        assert any(b'"status":"succeeded"' in line for line in late)
        # 6 MB were said: who holds a megabyte of them for each reader grows by 200 and more.
        assert api.memory_info().rss - before < 100e6
        api.terminate()
        api.wait(timeout=20)
    wait_until(lambda: up(own), "the API is back")


def test_a_stream_outlives_a_restart_of_the_api_where_it_stopped(
    own: httpx.Client, local: Local, tmp_path: Path
) -> None:
    id = submit(own, tmp_path, "a", "b", "c", hold=2)
    api = psutil.Process(local.ps()["api"]["pid"])
    with ThreadPoolExecutor() as pool, follow(own, id) as events:
        while (last := next(events)).event != "output":
            pass
        polling = pool.submit(own.get, f"/v1/jobs/{id}?wait=60")
        wait_until(lambda: connections(api, local.port) >= 2, "both are connected")
        api.terminate()
        list(events)  # ends, and not by a broken connection
        assert polling.result().json()["status"] == "running"
        api.wait(timeout=20)
    wait_until(lambda: up(own), "the API is back")
    (tmp_path / "open").touch()
    assert pieces(all_events(own, id, last.id)) == ["b", "c"]


def connections(api: psutil.Process, port: int) -> int:
    tcp = api.net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr[1] == port for each in tcp)


def up(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_two_hundred_streams_at_once(client: httpx.Client, system: Local, tmp_path: Path) -> None:
    inputs = [{"folder": str(tmp_path), "pieces": [place, "b", "c"], "hold": 0} for place in range(200)]
    data = client.post("/v1/jobs:batch", json={"model": "teller", "inputs": inputs}).json()["data"]
    wait_until((tmp_path / "began").exists, "the batch began")

    async def listen(client: httpx.AsyncClient, id: str, started: asyncio.Semaphore) -> list[str]:
        async with client.stream("GET", f"/v1/jobs/{id}/events") as answer:
            lines = answer.aiter_lines()
            found = [await anext(lines)]
            started.release()
            return [*found, *[line async for line in lines]]

    async def run() -> list[list[str]]:
        headers = {"authorization": f"Bearer {KEY}"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=system.url, headers=headers, limits=limits, timeout=60, trust_env=False
        ) as many:
            started = asyncio.Semaphore(0)
            listening = [asyncio.create_task(listen(many, each["id"], started)) for each in data]
            for _ in data:
                await started.acquire()
            (tmp_path / "open").touch()
            return await asyncio.gather(*listening)

    for place, lines in enumerate(asyncio.run(run())):
        events = list(parse(lines))
        assert pieces(events) == [place, "b", "c"]
        assert events[-1].data["status"] == "succeeded"
