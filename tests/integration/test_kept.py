"""A kept connection is each thread's own, and is made anew once it broke."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

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


def ended(engine: store.Engine, backend: int) -> None:
    """As a Postgres does that is started again, while nothing is asked of it."""
    with engine.begin() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend({backend}, 10000)"))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was asked something just now is looked at too."""
    monkeypatch.setattr("tundish.store.kept.IDLE", 0.0)


@pytest.mark.usefixtures("always")
def test_one_that_the_server_has_closed_is_made_anew_before_it_fails(kept: store.Kept, engine: store.Engine) -> None:
    before = pid(kept())
    ended(engine, before)
    assert pid(kept()) != before


def test_so_is_one_of_a_pool(database_url: str, engine: store.Engine) -> None:
    pool = store.engine(database_url, 1)
    with pool.begin() as connection:
        before = pid(connection)
    ended(engine, before)
    with pool.begin() as connection:
        assert pid(connection) != before
    pool.dispose()


def test_a_row_that_does_not_fit_breaks_nothing(kept: store.Kept) -> None:
    before = pid(kept())
    with pytest.raises(store.RowError):
        NUMBER.rows(kept(), {"number": "none"})
    assert pid(kept()) == before


@pytest.mark.usefixtures("always")
def test_the_same_in_an_event_loop(database_url: str, engine: store.Engine) -> None:
    begun = threading.Event()

    def sleep(connection: store.Connection) -> None:
        begun.set()
        SLEEP.rows(connection, {})

    async def run() -> None:
        other, mine = store.async_engine(database_url, 1), store.async_engine(database_url, 2, autocommit=True)
        pool: Any = mine.sync_engine.pool
        kept = store.AsyncKept(mine)
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
        third = await kept.run(pid)
        assert third not in (first, second)
        await asyncio.to_thread(ended, engine, third)
        assert await kept.run(pid) != third
        pooled = await store.run(other, pid)
        await asyncio.to_thread(ended, engine, pooled)
        assert await store.run(other, pid) != pooled
        assert pool.checkedout() == 1
        await kept.close()
        assert pool.checkedout() == 0
        await mine.dispose()
        await other.dispose()

    asyncio.run(run())
