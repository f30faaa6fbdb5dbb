"""The queue of submits is bounded: beyond it they are refused, and taken again once there is room."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api import flush
from api.submit import Submitter
from tundish import queue, store
from tundish.errors import Unavailable
from tundish.ids import new_uuid
from tundish.job import Priority


def job(body: bytes = b"1") -> store.NewJob:
    return store.NewJob(new_uuid(), 1, "m", "1", Priority.NORMAL, 60.0, "application/json", len(body), body)


def never_flushed() -> flush.Flush:
    """A flush whose loop does not run: what is submitted waits."""
    return flush.Flush(cast(Any, None), cast(Any, None))


async def refused(each: flush.Flush, jobs: Sequence[store.NewJob]) -> Unavailable:
    with pytest.raises(Unavailable) as error:
        await each.submit(jobs)
    return error.value


def test_too_many_rows_are_refused() -> None:
    async def run() -> None:
        each = never_flushed()
        waiting = asyncio.create_task(each.submit([job()] * flush.WAITING))
        await asyncio.sleep(0)
        problem = await refused(each, [job()])
        assert (problem.code, problem.status, problem.retry_after) == ("overloaded", 503, 1)
        waiting.cancel()

    asyncio.run(run())


def test_too_many_bytes_are_refused() -> None:
    async def run() -> None:
        each = never_flushed()
        large = job(bytes(flush.WAITING_BYTES // 4))
        waiting = asyncio.create_task(each.submit([large] * 4))
        await asyncio.sleep(0)
        assert (await refused(each, [job()])).code == "overloaded"
        waiting.cancel()

    asyncio.run(run())


def test_who_waited_too_long_is_answered_and_not_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[int] = []

    async def slow(engine: object, verb: object, jobs: Sequence[store.NewJob]) -> datetime:
        stored.append(len(jobs))
        begun.set()
        await go_on.wait()
        return datetime.now(UTC)

    async def sent(self: flush.Flush, jobs: Sequence[store.NewJob], at: datetime) -> None:
        done.set()

    async def run() -> None:
        each = never_flushed()
        running = asyncio.create_task(each.run())
        first = asyncio.create_task(each.submit([job()]))
        await begun.wait()
        assert (await refused(each, [job()] * 2)).code == "unavailable"
        go_on.set()
        await done.wait()
        assert stored == [1]
        assert first.done()  # its own wait was over too
        done.clear()
        await each.submit([job()] * 3)
        assert stored == [1, 3]
        running.cancel()
        await asyncio.gather(first, running, return_exceptions=True)

    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("api.patience.PATIENCE", 0.05)
    monkeypatch.setattr(store.AsyncKept, "run", slow)
    monkeypatch.setattr(flush.Flush, "send", sent)
    asyncio.run(run())


def test_a_redis_that_stalls_holds_up_no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    class Stalled:
        async def push(self, lists: Mapping[str, object]) -> None:
            tried.extend(lists)
            await asyncio.Event().wait()

    async def stored(engine: object, verb: object, jobs: Sequence[store.NewJob]) -> datetime:
        return datetime.now(UTC)

    async def run() -> list[datetime]:
        each = flush.Flush(cast(Any, None), cast(Any, Stalled()))
        running = asyncio.create_task(each.run())
        answers = [await each.submit([job()]) for _ in range(3)]
        running.cancel()
        return answers

    monkeypatch.setattr(flush, "TELL", 0.01)
    monkeypatch.setattr(store.AsyncKept, "run", stored)
    assert len(asyncio.run(run())) == 3
    assert len(tried) >= 2  # Redis was to hear of each before the next one went


def test_redis_is_not_asked_to_take_the_messages_of_no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    away, pushed, at = [True], [], datetime(2026, 1, 31, 12, tzinfo=UTC)

    class Open:
        async def push(self, lists: Mapping[str, list[bytes]]) -> None:
            [[message]] = lists.values()
            pushed.append(queue.time_of(message))
            told.set()

    async def stored(engine: object, verb: object, jobs: Sequence[store.NewJob]) -> datetime:
        if away.pop():
            raise OSError
        return at

    async def run() -> None:
        each = flush.Flush(cast(Any, None), cast(Any, Open()))
        running = asyncio.create_task(each.run())
        assert (await refused(each, [job()])).code == "unavailable"
        away.append(False)
        await each.submit([job()])
        await told.wait()
        running.cancel()

    told = asyncio.Event()
    monkeypatch.setattr(store.AsyncKept, "run", stored)
    asyncio.run(run())
    assert pushed == [at], "a message says what the row says, whatever this host's clock"


def test_a_store_of_blobs_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    blobs = SimpleNamespace(put=lambda *_: go_on.wait())
    nobody = cast(Any, None)
    submitter = Submitter(nobody, cast(Any, blobs), nobody, nobody, inline_max=0, max_body=1)

    async def run() -> None:
        try:
            with pytest.raises(Unavailable):
                await asyncio.wait_for(submitter._place([job()] * 40), 10)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "signed"), 10) == "signed"
        finally:
            go_on.set()

    monkeypatch.setattr("api.patience.PATIENCE", 0.05)
    asyncio.run(run())
