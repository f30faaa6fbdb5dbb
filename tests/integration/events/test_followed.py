"""Who follows a job, or waits for its end, with a real Valkey and without one."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
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
from tests.local import wait_until
from tests.sse import Event, parse
from tundish import store
from tundish.blobs import open_blobs
from tundish.events import Kind, Position, piece_data
from tundish.ids import new_uuid, to_text
from tundish.settings import Settings
from workers.chores import Tools, reap
from workers.events import Events, Said


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
