"""No statement hangs on a server that stalls."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from sqlalchemy import text

from tests.local import wait_until
from tundish import store
from tundish.store.stall import guard
from tundish.store.statement import Statement


def test_a_server_that_stalls_is_given_up(database_url: str) -> None:
    engine = store.engine(database_url)
    guard(engine, limit=0.3)
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        began = time.monotonic()
        with pytest.raises(store.StoreError):
            connection.execute(text("SELECT pg_sleep(60)"))
        assert time.monotonic() - began < 5
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()


def test_a_thread_waits_for_a_connection_for_as_long_as_others_are_given_up_one_by_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = store.engine(database_url, 1)
    pool: Any = engine.pool
    hours = count(step=3600)
    monkeypatch.setattr("sqlalchemy.util.queue._time", lambda: next(hours))

    def one() -> object:
        with engine.connect() as connection:
            return connection.execute(text("SELECT 1")).scalar()

    with ThreadPoolExecutor(1) as threads:
        with ExitStack() as others:
            for _ in range(3):
                others.enter_context(engine.connect())
            waits = threads.submit(one)
            wait_until(lambda: waits.done() or pool._pool.not_empty._waiters, "it waits, or has given up")
        assert waits.result() == 1
    engine.dispose()


SLEEP = Statement("SELECT pg_sleep(7)")


async def given_up(database_url: str, verb: Callable[[store.Connection], object], autocommit: bool) -> float:
    engine = store.async_engine(database_url, autocommit=autocommit)
    guard(engine.sync_engine, limit=0.3)
    began = time.monotonic()
    with pytest.raises(store.StoreError):
        await store.run(engine, verb)
    await engine.dispose()
    return time.monotonic() - began


def by_sqlalchemy(connection: store.Connection) -> object:
    return connection.execute(text("SELECT pg_sleep(7)"))


def by_the_driver(connection: store.Connection) -> object:
    return SLEEP.rows(connection, {})


@pytest.mark.parametrize("verb", [by_sqlalchemy, by_the_driver])
@pytest.mark.parametrize("autocommit", [False, True])
def test_an_event_loop_does_not_wait_for_it_either(
    database_url: str, verb: Callable[[store.Connection], object], autocommit: bool
) -> None:
    assert asyncio.run(given_up(database_url, verb, autocommit)) < 5
