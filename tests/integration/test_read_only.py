"""A server that takes no writes any more, as one whose place another has taken: nothing goes on leading to it."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from local.embed import postgres
from local.place import Place
from tests.local import wait_until
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


@pytest.fixture
def standby(tmp_path: Path) -> Iterator[str]:
    """The URL of a server that stands by."""
    place = Place(tmp_path)
    child = postgres(place)
    signal_file = place.root / "postgres" / "standby.signal"
    signal_file.touch()
    owner = signal_file.parent.stat()
    os.chown(signal_file, owner.st_uid, owner.st_gid)
    url = (child.url or "").replace("/tundish?", "/postgres?")

    def stands_by() -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(url) as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        return False

    with place.log("postgres").open("wb") as log, subprocess.Popen(child.command, stderr=log) as process:
        wait_until(stands_by, "it stands by")
        yield url
        process.send_signal(signal.SIGINT)


def test_nobody_connects_to_one_that_stands_by(standby: str) -> None:
    """A name may lead to it for a while: a connection that was made then would be kept, and read what is old."""
    with pytest.raises(store.StoreError, match="hot standby"):
        store.engine(standby).connect()


def test_one_that_takes_no_writes_itself_is_read(database_url: str) -> None:
    """As one whose disk is full: APIs go on telling what there is, and why they are not ready."""
    with psycopg.connect(database_url, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # for new connections
        engine = store.engine(database_url)
        with engine.connect() as connection:
            assert not store.takes_writes(connection)
        engine.dispose()
