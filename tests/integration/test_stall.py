"""No statement hangs on a server that stalls."""

import asyncio
import time

import pytest
from sqlalchemy import text

from tundish import store
from tundish.store.stall import guard


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


async def given_up(database_url: str, single: bool) -> float:
    engine = store.async_engine(database_url, single=single)
    guard(engine.sync_engine, limit=0.3)
    began = time.monotonic()
    with pytest.raises(store.StoreError):
        await store.run(engine, lambda connection: connection.execute(text("SELECT pg_sleep(7)")))
    await engine.dispose()
    return time.monotonic() - began


@pytest.mark.parametrize("single", [False, True])
def test_an_event_loop_does_not_wait_for_it_either(database_url: str, single: bool) -> None:
    assert asyncio.run(given_up(database_url, single)) < 5
