"""A kept connection is each thread's own, and is made anew once it broke."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tundish import store
from tundish.store.statement import Statement

PID = Statement("SELECT pg_backend_pid()")
END = Statement("SELECT pg_terminate_backend(pg_backend_pid())")
SLEEP = Statement("SELECT pg_sleep(60)")
NUMBER = Statement("SELECT CAST(:number AS int)")


def pid(connection: store.Connection) -> int:
    [(found,)] = PID.rows(connection, {})
    return int(found)


def test_a_thread_keeps_its_own(kept: store.Kept) -> None:
    mine = pid(kept())
    with ThreadPoolExecutor(1) as other:
        theirs = [other.submit(lambda: pid(kept())).result() for _ in range(2)]
    assert pid(kept()) == mine
    assert theirs[0] == theirs[1] != mine


def test_one_that_broke_is_made_anew(kept: store.Kept) -> None:
    before = pid(kept())
    with pytest.raises(store.StoreError):
        END.rows(kept(), {})
    assert pid(kept()) != before


def test_a_row_that_does_not_fit_breaks_nothing(kept: store.Kept) -> None:
    before = pid(kept())
    with pytest.raises(store.RowError):
        NUMBER.rows(kept(), {"number": "none"})
    assert pid(kept()) == before


def test_the_same_in_an_event_loop(database_url: str) -> None:
    begun = threading.Event()

    def sleep(connection: store.Connection) -> None:
        begun.set()
        SLEEP.rows(connection, {})

    async def run() -> None:
        engine = store.async_engine(database_url, 2, autocommit=True)
        pool: Any = engine.sync_engine.pool
        kept = store.AsyncKept(engine)
        first = await kept.run(pid)
        assert await kept.run(pid) == first
        with pytest.raises(store.StoreError):
            await kept.run(END.rows, {})
        second = await kept.run(pid)
        assert second != first
        sleeping = asyncio.create_task(kept.run(sleep))
        await asyncio.to_thread(begun.wait)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert await kept.run(pid) not in (first, second)
        assert pool.checkedout() == 1
        await kept.close()
        assert pool.checkedout() == 0
        await engine.dispose()

    asyncio.run(run())
