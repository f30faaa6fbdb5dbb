"""A server that takes no writes any more, as one whose place another has taken: nothing goes on leading to it."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import text

from tundish import store
from tundish.store.statement import Statement

_INSERT = "INSERT INTO pauses (kind, name) VALUES ('pool', 'p') ON CONFLICT DO NOTHING RETURNING true"
WRITE = Statement(_INSERT)
#: For this connection alone: the next one is of the server that took the place.
DEMOTE = Statement("SELECT set_config('default_transaction_read_only', 'on', false)")


def by_the_driver(connection: store.Connection) -> None:
    WRITE.rows(connection, {})


def sent(connection: store.Connection) -> None:
    WRITE.send(connection, {})()


@pytest.mark.parametrize("write", [by_the_driver, sent])
def test_a_kept_connection_to_it_is_not_used_again(kept: store.Kept, write: Callable[[store.Connection], None]) -> None:
    DEMOTE.rows(kept(), {})
    with pytest.raises(store.StoreError, match="read-only transaction"):
        write(kept())
    write(kept())


def test_a_pooled_connection_to_it_is_not_used_again(engine: store.Engine) -> None:
    with engine.begin() as connection:
        DEMOTE.rows(connection, {})
    with pytest.raises(store.StoreError, match="read-only transaction"), engine.begin() as connection:
        connection.execute(text(_INSERT))
    with engine.begin() as connection:
        connection.execute(text(_INSERT))


def test_the_same_in_an_event_loop(database_url: str) -> None:
    async def run() -> None:
        engine = store.async_engine(database_url, 2, autocommit=True)
        kept = store.AsyncKept(engine)
        await kept.run(DEMOTE.rows, {})
        with pytest.raises(store.StoreError, match="read-only transaction"):
            await kept.run(by_the_driver)
        await kept.run(by_the_driver)
        await kept.close()
        await engine.dispose()

    asyncio.run(run())


def test_nobody_connects_to_it(database_url: str) -> None:
    """Its name may lead to it for a while: a connection that was made then would be kept, and read what is old."""
    engine = store.engine(database_url)
    with psycopg.connect(database_url, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # for new connections
        with pytest.raises(store.StoreError, match="read-only"):
            engine.connect()
        admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    with engine.begin() as connection:
        connection.execute(text(_INSERT))
    engine.dispose()
