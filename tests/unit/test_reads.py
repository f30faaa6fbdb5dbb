"""Who asks for a job is told once: what was read, or that nobody can tell it in time."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from api import reads
from tundish import store
from tundish.errors import Unavailable
from tundish.ids import new_uuid
from tundish.job import Priority, Status

FIRST, SECOND = new_uuid(), new_uuid()


def row(key: reads.Key) -> store.JobRow:
    id, tenant = key
    return store.JobRow(id, tenant, "m", "1", Status.QUEUED, False, 0, Priority.NORMAL, datetime.now(UTC))


class Read:
    """In place of the statement: what each read was asked for, and when it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: list[list[reads.Key]] = []
        self.begun = asyncio.Event()
        self.over = asyncio.Event()

        async def run(kept: object, verb: object, asked: Sequence[reads.Key]) -> dict[reads.Key, store.JobRow]:
            self.of.append(list(asked))
            self.begun.set()
            await self.over.wait()
            return {key: row(key) for key in asked if key[0] != SECOND}

        monkeypatch.setattr(store.AsyncKept, "run", run)


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await event.wait()


def test_those_who_ask_at_the_same_time_share_a_read_and_those_who_ask_meanwhile_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        read, each = Read(monkeypatch), reads.Reads(cast(Any, None))
        gets = [each.get(FIRST, 1), each.get(FIRST, 1), each.get(SECOND, 1)]
        first = [asyncio.create_task(get) for get in gets]
        loop = asyncio.create_task(each.run())
        await until(read.begun)
        later = asyncio.create_task(each.get(FIRST, 1))
        await asyncio.sleep(0)
        read.over.set()
        async with asyncio.timeout(10):
            found = await asyncio.gather(*first, later)
        assert [job and job.id for job in found] == [FIRST, FIRST, None, FIRST]
        assert read.of == [[(FIRST, 1), (SECOND, 1)], [(FIRST, 1)]]
        loop.cancel()

    asyncio.run(run())


def test_who_waits_too_long_is_told_so_and_who_came_later_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        read, each = Read(monkeypatch), reads.Reads(cast(Any, None))
        told = list[tuple[str, reads.Found]]()
        monkeypatch.setattr(reads, "PATIENCE", 0.2)
        loop = asyncio.create_task(each.run())
        early = asyncio.create_task(each.get(FIRST, 1))
        await until(read.begun)
        also = asyncio.create_task(each.get(SECOND, 1))
        await asyncio.sleep(0)
        monkeypatch.setattr(reads, "PATIENCE", 60.0)
        each.ask(SECOND, 1, lambda found: told.append(("later", found)))
        for one in (early, also):  # of the read that is on its way, and of the next
            with pytest.raises(Unavailable) as error:
                async with asyncio.timeout(10):
                    await one
            assert error.value.status == 503
        assert told == []
        read.over.set()
        async with asyncio.timeout(10):
            assert await each.get(SECOND, 1) is None
        assert told == [("later", None)]
        loop.cancel()
        await each.close()

    asyncio.run(run())


def test_a_read_that_fails_is_told_to_all_who_asked_and_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        each, fails = reads.Reads(cast(Any, None)), [True, False]

        async def read(kept: object, verb: object, asked: Sequence[reads.Key]) -> dict[reads.Key, store.JobRow]:
            if fails.pop(0):
                raise OSError("no answer")
            return {key: row(key) for key in asked}

        monkeypatch.setattr(store.AsyncKept, "run", read)
        loop = asyncio.create_task(each.run())
        async with asyncio.timeout(10):
            ends = await asyncio.gather(each.get(FIRST, 1), each.get(SECOND, 1), return_exceptions=True)
            assert [type(end) for end in ends] == [Unavailable, Unavailable]
            assert await each.get(FIRST, 1)
        loop.cancel()

    asyncio.run(run())


def test_an_answer_that_cannot_be_given_keeps_nobody_else_from_his(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        read, each = Read(monkeypatch), reads.Reads(cast(Any, None))
        read.over.set()

        def broken(found: reads.Found) -> None:
            raise RuntimeError("the connection is in no state for it")

        each.ask(FIRST, 1, broken)
        loop = asyncio.create_task(each.run())
        async with asyncio.timeout(10):
            assert await each.get(FIRST, 1)
        loop.cancel()

    asyncio.run(run())


def test_who_hangs_up_is_passed_by(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        read, each = Read(monkeypatch), reads.Reads(cast(Any, None))
        loop = asyncio.create_task(each.run())
        gone = asyncio.create_task(each.get(FIRST, 1))
        stays = asyncio.create_task(each.get(FIRST, 1))
        await until(read.begun)
        gone.cancel()
        read.over.set()
        async with asyncio.timeout(10):
            assert await stays
        assert gone.cancelled()
        assert caplog.records == []
        loop.cancel()

    asyncio.run(run())


def test_nothing_is_read_for_who_was_told_already(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        read, each = Read(monkeypatch), reads.Reads(cast(Any, None))
        monkeypatch.setattr(reads, "PATIENCE", 0.05)
        loop = asyncio.create_task(each.run())
        first = asyncio.create_task(each.get(FIRST, 1))
        await until(read.begun)
        for number in range(2 * reads.ROWS):
            each.ask(new_uuid(), number, lambda found: None)
        with pytest.raises(Unavailable):
            await each.get(new_uuid(), 1)
        monkeypatch.setattr(reads, "PATIENCE", 60.0)
        read.over.set()
        async with asyncio.timeout(10):
            assert await each.get(SECOND, 1) is None
        assert [len(keys) for keys in read.of] == [1, 1]
        with pytest.raises(Unavailable):
            await first
        loop.cancel()

    asyncio.run(run())
