"""Events through a real Valkey, from a model's thread to who follows the job."""

import asyncio
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from starlette.requests import Request
from starlette.types import Message

import api.events
from api.events import Follower
from api.jobs import Jobs
from api.parts import Parts, build, running
from api.streams import PAGE, PAGE_BYTES
from api.waiters import Waiters
from local.http import free_port
from tests.integration.stored import claim, end, run_out, start, submit
from tests.local import Local, wait_until
from tests.sse import Event, parse
from tundish import Batch, Model, Reject, events, queue, store
from tundish.blobs import open_blobs
from tundish.codec import codec_for
from tundish.events import Kind, Position, piece_data
from tundish.execute import execute
from tundish.ids import new_uuid, to_text
from tundish.job import Priority
from tundish.outcome import Item
from tundish.settings import Settings
from workers import connect
from workers.chores import Tools, batches, expire, reap, survey
from workers.events import Events, Said
from workers.report import Reporter


@pytest.fixture
def redis_url(system: Local) -> str:
    """A database of its own, so that a test may flush it."""
    url: str = system.ps()["valkey"]["url"]
    return f"{url}?db=7"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect.redis_client(redis_url) as client:
        client.flushdb()
        yield client


def stored(client: redis.Redis, job: UUID) -> list[tuple[str, str, Any]]:
    entries: Any = client.xrange(events.key(job))
    said = [(id.decode(), *events.said_by(entry)) for id, entry in entries]
    return [(id, kind, json.loads(data)) for id, kind, data in said]


@contextmanager
def heard(client: redis.Redis, channel: str) -> Iterator[Callable[[], set[UUID]]]:
    """What is told on a channel; a call waits for the next message."""
    with client.pubsub() as subscription:  # type: ignore[no-untyped-call]  # redis leaves it untyped
        subscription.subscribe(channel)
        wait_until(lambda: subscription.get_message(timeout=1), "the subscription")

        def next_ids() -> set[UUID]:
            data = wait_until(lambda: subscription.get_message(timeout=1), "a message")["data"]
            return {UUID(bytes=data[at : at + 16]) for at in range(0, len(data), 16)}

        yield next_ids


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


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url, redis_url=redis_url, blob_url=f"file://{tmp_path}")


@pytest.fixture
def away(settings: Settings) -> Settings:
    """Those of an API whose Redis is gone."""
    return replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}")


START = Position(0, 0)


class Client:
    """Follows a job inside this process, with the parts of an API."""

    def __init__(self, parts: Parts, job: store.JobRow, after: Position = START) -> None:
        self.said = b""
        self.gate = asyncio.Event()
        self.gate.set()
        self.task = asyncio.create_task(Follower(parts, job, after, self.say).run())

    async def say(self, body: bytes) -> None:
        await self.gate.wait()
        self.said += body

    @property
    def events(self) -> list[Event]:
        return list(parse(self.said.decode().splitlines()))

    @property
    def shown(self) -> list[object]:
        return [each.data.get("piece") or each.data.get("status") for each in self.events]

    async def until(self, found: Callable[[], object], what: str) -> None:
        await asyncio.to_thread(wait_until, lambda: found() or None, what)


Scene = Callable[[Parts], Any]


def play(settings: Settings, scene: Scene) -> None:
    async def run() -> None:
        parts = build(settings)
        async with running(parts):
            await scene(parts)

    asyncio.run(run())


def begun(engine: store.Engine, id: UUID) -> store.ClaimedJob:
    """The job, claimed and started."""
    held, [job] = claim(engine, [id])
    assert start(engine, held)
    return job


def finish(engine: store.Engine, job: store.ClaimedJob) -> None:
    with engine.begin() as connection:
        store.record(connection, [end(job)], [])


def test_a_silent_stream_beats_and_ends_with_its_process(
    settings: Settings, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.events, "HEARTBEAT", 0.05)
    [id] = submit(engine)

    async def scene(parts: Parts) -> None:
        following = Client(parts, await parts.job(1, id))
        await following.until(lambda: following.said.count(b":\n\n") >= 3, "three beats")
        assert following.shown == ["queued"]
        parts.waiters.stop()
        await following.task

    play(settings, scene)


def test_a_flush_of_redis_loses_what_was_and_neither_what_comes_nor_the_end(
    settings: Settings, engine: store.Engine, client: redis.Redis
) -> None:
    [id] = submit(engine)
    sink = Events(client, kept=100)

    async def scene(parts: Parts) -> None:
        following = Client(parts, await parts.job(1, id))
        await following.until(lambda: following.shown == ["queued"], "the first status")
        job = begun(engine, id)
        said = Said(id, job.attempt)
        sink.put(said, Kind.OUTPUT, piece_data("a", 1))
        await following.until(lambda: following.shown == ["queued", "running", "a"], "a piece")
        client.flushall()
        sink.put(said, Kind.OUTPUT, piece_data("b", 1))
        await following.until(lambda: following.shown[-1] == "b", "a piece after the flush")
        late = Client(parts, await parts.job(1, id))
        await late.until(lambda: late.shown == ["running", "b"], "what is left for who comes late")
        finish(engine, job)
        await parts.tell(id)
        await asyncio.gather(following.task, late.task)
        assert following.shown == ["queued", "running", "a", "b", "succeeded"]
        assert [each.id for each in following.events] == ["0-0", "1-0", "1-1", "1-2", "end"]

    play(settings, scene)


def test_a_new_attempt_voids_what_the_one_before_it_said(
    settings: Settings, engine: store.Engine, client: redis.Redis
) -> None:
    [id] = submit(engine)
    sink = Events(client, kept=100)

    async def scene(parts: Parts) -> None:
        held, [job] = claim(engine, [id])
        assert start(engine, held)
        following = Client(parts, await parts.job(1, id))
        sink.put(Said(id, 1), Kind.OUTPUT, piece_data("a", 1))
        await following.until(lambda: following.shown == ["running", "a"], "a piece")
        run_out(engine, held)
        reap.run(Tools(settings, engine, client, open_blobs(settings)))
        second = begun(engine, id)
        sink.put(Said(id, 1, number=9), Kind.OUTPUT, piece_data("late", 1))
        sink.put(Said(id, 2), Kind.OUTPUT, piece_data("b", 2))
        await following.until(lambda: following.shown[-2:] == ["running", "b"], "a piece of the second attempt")
        fresh = Client(parts, await parts.job(1, id))
        resumed = Client(parts, await parts.job(1, id), after=Position(1, 1))
        second_alone = ["running", "b"]
        await fresh.until(lambda: fresh.shown == second_alone, "what the second attempt has said")
        await resumed.until(lambda: resumed.shown == second_alone, "what the second attempt has said")
        finish(engine, second)
        await parts.tell(id)
        await asyncio.gather(following.task, fresh.task, resumed.task)
        assert fresh.shown == resumed.shown == ["running", "b", "succeeded"]
        assert [each.data["attempt"] for each in following.events if each.event == "output"][-1] == 2
        assert not job.deaths

    play(settings, scene)


def test_who_reads_slowly_gets_it_all_later_and_nothing_gathers_for_it(
    settings: Settings, engine: store.Engine, client: redis.Redis
) -> None:
    [id] = submit(engine)
    sink = Events(client, kept=100)

    async def scene(parts: Parts) -> None:
        job = begun(engine, id)
        slow, quick = Client(parts, await parts.job(1, id)), Client(parts, await parts.job(1, id))
        slow.gate.clear()
        await quick.until(lambda: quick.shown == ["running"], "the first status")
        said = Said(id, 1)
        for number in range(1000):
            sink.put(said, Kind.OUTPUT, piece_data(str(number), 1))
        sink.settle()
        finish(engine, job)
        await parts.tell(id)
        await quick.task
        assert not slow.said
        slow.gate.set()
        await slow.task
        wanted = ["running", *map(str, range(1000)), "succeeded"]
        assert slow.shown == quick.shown == wanted

    play(settings, scene)


def test_a_page_is_small_and_large_events_are_read_a_few_at_a_time(settings: Settings, client: redis.Redis) -> None:
    job = new_uuid()
    said, sink = Said(job, 1), Events(client, kept=100)
    for size in [15_000] * 20 + [1] * 20:
        sink.put(said, Kind.OUTPUT, piece_data("x" * size, 1))
    sink.settle()

    async def scene(parts: Parts) -> None:
        after, most, counts, asked = START, PAGE, [], []
        while page := await parts.streams.after(job, after, most):
            assert len(page.frames) <= PAGE_BYTES
            counts.append(len(list(parse(page.frames.decode().splitlines()))))
            asked.append(most)
            after, most = page.last, page.most
        assert sum(counts) == 40
        assert counts[:4] == [4, 4, 4, 4]
        assert asked == [PAGE, 5, 5, 5, 5, PAGE]

    play(settings, scene)


def test_without_redis_the_statuses_come_all_the_same(away: Settings, engine: store.Engine) -> None:
    [id] = submit(engine)

    async def scene(parts: Parts) -> None:
        following = Client(parts, await parts.job(1, id))
        await following.until(lambda: following.shown == ["queued"], "the first status")
        job = begun(engine, id)
        await following.until(lambda: following.shown == ["queued", "running"], "the poll")
        finish(engine, job)
        await following.task
        assert following.shown == ["queued", "running", "succeeded"]

    play(away, scene)


def test_without_redis_a_long_poll_is_answered_by_the_slow_look(
    away: Settings, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = begun(engine, *submit(engine))
    looked = asyncio.Event()

    async def scene(parts: Parts) -> None:
        async def never() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        def ring(self: Waiters, id: UUID) -> None:
            looked.set()
            rung(self, id)

        rung = Waiters.ring
        monkeypatch.setattr(Waiters, "ring", ring)
        path = {"path_params": {"id": to_text("job", job.id)}, "query_string": b"wait=60"}
        asked = Request({"type": "http", "method": "GET", "headers": [], "state": {"tenant": 1}, **path}, never)
        polling = asyncio.create_task(Jobs(parts).get(asked))
        async with asyncio.timeout(30):
            await looked.wait()  # the first look at a job rings: from then on it waits
            finish(engine, job)
            answer = await polling
        assert json.loads(bytes(answer.body))["status"] == "succeeded"

    play(away, scene)


@pytest.mark.parametrize("how", ["expire", "reap"])
def test_ends_that_chores_make_wake_who_waits(
    settings: Settings, engine: store.Engine, client: redis.Redis, how: str
) -> None:
    tools = Tools(settings, engine, client, open_blobs(settings))
    [id] = submit(engine, expires_in=0.001 if how == "expire" else 60)
    with heard(client, queue.DONE) as ids:
        if how == "expire":
            survey.Survey().run(tools)
            wait_until(lambda: expire.run(tools) or None, "it expired")
        else:
            held, _ = claim(engine, [id])
            assert start(engine, held)
            with engine.begin() as connection:
                store.cancel(connection, 1, id)
            run_out(engine, held)
            assert reap.run(tools) == 1
        assert ids() == {id}


def test_a_batch_that_is_canceled_wakes_who_waits_for_a_line(
    settings: Settings, engine: store.Engine, client: redis.Redis
) -> None:
    batch, job = new_uuid(), store.NewJob(new_uuid(), 1, "m", "1", Priority.LOW, 60.0, "text/plain", 1, b"1")
    with engine.begin() as connection:
        store.new_batch(connection, store.NewBatch(batch, 1, "m", "blob", "etag", 1, 60.0))
        store.begin_batch(connection, batch, 1)
        begun = store.read_batch(connection, 1, batch)
        assert begun
        assert store.add_lines(connection, begun, [store.NewLine(1, "a", job.id)], [job], end=1, lease=0.0)
        store.cancel_batch(connection, 1, batch)
    with heard(client, queue.DONE) as ids:
        assert batches.run(Tools(settings, engine, client, open_blobs(settings))) == 1
        assert ids() == {job.id}
