"""What running jobs say, as a worker writes it to a real Valkey."""

import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import redis

from local.http import free_port
from tests.integration.events.steps import heard, stored
from tests.integration.stored import claim, submit
from tests.local import Local
from tundish import Batch, Model, Reject, events, store
from tundish.codec import codec_for
from tundish.events import Kind, piece_data
from tundish.execute import execute
from tundish.ids import new_uuid
from tundish.outcome import Item
from workers import connect
from workers.events import Events, Said
from workers.report import Reporter


def test_what_is_said_is_written_in_order_for_a_while_and_wakes_who_listens(client: redis.Redis) -> None:
    said, other, sink = Said(new_uuid(), 1), Said(new_uuid(), 1), Events(client, kept=100)
    with heard(client, events.CHANNEL) as ids:
        sink.put(said, Kind.OUTPUT, piece_data("a", 1))
        assert ids() == {said.job}
        said.progress = 0.5
        sink.put(said, Kind.PROGRESS)
        sink.put(other, Kind.OUTPUT, piece_data("x", 1))
        sink.put(said, Kind.OUTPUT, piece_data("b", 1))
        sink.settle()
        assert said.job in ids()
    assert stored(client, said.job) == [
        ("1-1", "output", {"piece": "a", "attempt": 1}),
        ("1-2", "progress", {"progress": 0.5}),
        ("1-3", "output", {"piece": "b", "attempt": 1}),
    ]
    assert len(stored(client, other.job)) == 1
    assert 90 < client.ttl(events.key(said.job)) <= 100


def test_an_earlier_attempt_cannot_speak_up_again(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    job, sink = new_uuid(), Events(client, kept=100)
    first, second = Said(job, 1), Said(job, 2)
    for said, piece in ((first, "a"), (second, "b"), (first, "c"), (second, "d")):
        sink.put(said, Kind.OUTPUT, piece_data(piece, said.attempt))
    sink.settle()
    assert [data["piece"] for _, _, data in stored(client, job)] == ["a", "b", "d"]
    assert not caplog.records


def test_a_jobs_events_are_bounded_by_count_and_bytes(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LENGTH", 300)
    monkeypatch.setattr(events, "BYTES", 64 * 1000)
    sink = Events(client, kept=100)
    for size, most in ((1, 300), (1000, 62)):
        said = Said(new_uuid(), 1)
        for _ in range(600):
            sink.put(said, Kind.OUTPUT, piece_data("x" * size, 1))
        sink.settle()
        # Valkey trims whole nodes, of 100 entries or 4 KiB.
        assert most <= client.xlen(events.key(said.job)) < most + 100
        assert stored(client, said.job)[-1][0] == "1-600"


def test_without_redis_events_are_lost_and_nobody_waits(caplog: pytest.LogCaptureFixture) -> None:
    said, sink = Said(new_uuid(), 1), Events(connect.redis_client(f"redis://127.0.0.1:{free_port()}", patience=1), 100)
    began = time.monotonic()
    for _ in range(2):
        for _ in range(1000):
            sink.put(said, Kind.OUTPUT, b"{}")
        sink.settle()
    assert time.monotonic() - began < 2
    assert "events of running jobs were lost" in caplog.text


@contextmanager
def cut_after(path: str, size: int) -> Iterator[str]:
    """A way to the server on this socket, that breaks for good once so many bytes went there."""

    def carry(source: socket.socket, sink: socket.socket, left: float) -> None:
        with suppress(OSError):
            while left > 0 and (data := source.recv(int(min(left, 65536)))):
                sink.sendall(data)
                left -= len(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        near, _ = listener.accept()
        listener.close()
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(path)
            answers = threading.Thread(target=carry, args=(far, near, math.inf))
            answers.start()
            carry(near, far, size)
            answers.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/7"
        serving.join()


def test_what_a_worker_had_written_when_it_was_cut_off_does_not_stay_for_good(
    system: Local, client: redis.Redis
) -> None:
    """As where it is killed while it writes."""
    said = Said(new_uuid(), 1)
    with cut_after(system.ps()["valkey"]["url"].removeprefix("unix://"), 100_000) as url:
        sink = Events(connect.redis_client(url, patience=1), 100)
        with sink._changed:  # so that they go in one write
            for _ in range(200):
                sink.put(said, Kind.OUTPUT, piece_data("x" * 1000, 1))
        sink.settle()
    assert client.ttl(events.key(said.job)) != -1


class Divided(Model[int, int]):
    """Emits, and raises unless it has one item alone."""

    name = "divided"
    version = "1"

    def predict(self, batch: Batch[int]) -> list[int | Reject]:
        for index, item in enumerate(batch):
            batch.emit(index, item)
            batch.emit(index, b"refused")
            batch.progress(index, 2)
            batch.log(index, "said")
        if len(batch) > 1:
            raise ValueError("too many")
        return list(batch)


def test_what_a_divided_batch_says_again_is_told_apart(
    client: redis.Redis, engine: store.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Events(client, kept=100)
    _, jobs = claim(engine, submit(engine, 2))
    items = [Item(b"1", "application/json"), Item(b"2", "application/json")]
    execute(Divided(), codec_for(int), codec_for(int), items, Reporter(engine, sink, jobs))
    sink.settle()
    said = [each for each in stored(client, jobs[1].id) if each[1] == "output"]
    assert [data for _, _, data in said] == [
        {"piece": 2, "attempt": 1},
        {"piece": 2, "attempt": 1, "run": 2},
    ]
    assert caplog.text.count("a piece is what JSON can carry") == 1
