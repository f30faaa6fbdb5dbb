"""A statement of the hot path behaves as one of SQLAlchemy's."""

import asyncio
import math
import subprocess
import sys
import threading
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.local import wait_until
from tundish import store
from tundish.ids import new_uuid
from tundish.store.arrays import array
from tundish.store.statement import Statement

PID = Statement("SELECT pg_backend_pid()")
DIVIDE = Statement("SELECT 100 % :by, 'a:b' LIKE 'a%'")
NUMBER = Statement("SELECT CAST(:number AS int)")
END = Statement("SELECT pg_terminate_backend(pg_backend_pid())")
SLEEP = Statement("SELECT pg_sleep(60)")


def pid(engine: store.Engine) -> int:
    with engine.begin() as connection:
        [(found,)] = PID.rows(connection, {})
        return int(found)


def test_rows_and_percents(engine: store.Engine) -> None:
    with engine.begin() as connection:
        assert list(DIVIDE.rows(connection, {"by": 7})) == [(2, True)]


@pytest.mark.parametrize(
    ("type", "values"),
    [
        ("uuid", [UUID(int=0), None, UUID(int=2**128 - 1)]),
        ("int2", [-(2**15), 2**15 - 1, None]),
        ("int4", [-(2**31), 2**31 - 1]),
        ("int8", [-(2**63), None, 2**63 - 1]),
        ("float8", [0.1, -math.inf, None]),
        ("text", ["", 'a"b\\{},NULL', None, "\u00e9\U0001f600"]),
        ("bytea", [b"", bytes(range(256)), None]),
    ],
)
def test_an_array_arrives_as_it_was(engine: store.Engine, type: str, values: list[object]) -> None:
    """By the driver and by SQLAlchemy, also where there is nothing in it, or the same over and over."""
    sql = f"SELECT given FROM unnest(CAST(:given AS {type}[])) AS given"
    statement = Statement(sql)
    first, second, *_ = values
    for some in (values, [None, None], [], [first] * 3, [first, second, first], [None, first, None]):
        with engine.begin() as connection:
            assert [each for (each,) in statement.rows(connection, {"given": array(type, some)})] == some
            assert list(connection.execute(text(sql), {"given": array(type, some)}).scalars()) == some


def test_ids_may_be_digits() -> None:
    id = new_uuid()
    assert array("uuid", [id]) == array("uuid", [id.hex])


def test_it_takes_part_in_the_transaction(engine: store.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE kept (n int)"))
        nested = connection.begin_nested()
        Statement("INSERT INTO kept VALUES (1) RETURNING n").rows(connection, {})
        nested.rollback()
        assert connection.execute(text("SELECT count(*) FROM kept")).scalar() == 0


def test_a_row_that_does_not_fit_is_a_row_error_without_its_values(engine: store.Engine) -> None:
    with pytest.raises(store.RowError) as told, engine.begin() as connection:
        NUMBER.rows(connection, {"number": "no secret"})
    assert "secret" not in str(told.value).split("\n[SQL")[1]
    assert pid(engine)


def test_a_connection_that_broke_is_not_used_again(engine: store.Engine) -> None:
    before = pid(engine)
    with pytest.raises(store.StoreError) as told, engine.begin() as connection:
        END.rows(connection, {})
    assert told.value.connection_invalidated
    assert pid(engine) != before


def test_a_statement_that_was_cancelled_leaves_no_connection_in_the_middle(database_url: str) -> None:
    engine = store.async_engine(database_url, 1)
    begun = threading.Event()

    def sleep(connection: store.Connection) -> None:
        begun.set()
        SLEEP.rows(connection, {})

    async def cancelled() -> int:
        task = asyncio.create_task(store.run(engine, sleep))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        [(found,)] = await store.run(engine, PID.rows, {})
        await engine.dispose()
        return int(found)

    assert asyncio.run(asyncio.wait_for(cancelled(), 5))


def test_that_postgres_is_away_is_told_without_the_statement(engine: store.Engine, database_url: str) -> None:
    away = store.engine(database_url.replace("/test_", "/nowhere_"))
    for verb in (
        lambda: END.rows(engine.connect(), {}),
        lambda: engine.connect().execute(text("SELECT pg_terminate_backend(pg_backend_pid())")),
        away.connect,
    ):
        with pytest.raises(store.StoreError) as told:
            verb()
        assert "[SQL" not in str(told.value)
        assert "sqlalche.me" not in str(told.value)
    with pytest.raises(store.StoreError, match="SELECT no_such_thing"), engine.connect() as connection:
        connection.execute(text("SELECT no_such_thing"))


def test_what_is_sent_is_answered_later(kept: store.Kept) -> None:
    for number in (1, 2):
        answer = NUMBER.send(kept(), {"number": number})
        assert list(answer()) == [(number,)]


def test_what_is_sent_and_does_not_fit_is_a_row_error_and_its_connection_goes_on(kept: store.Kept) -> None:
    with pytest.raises(store.RowError):
        NUMBER.send(kept(), {"number": "no number"})()
    with pytest.raises(store.StoreError, match="no_such_thing"):
        Statement("SELECT no_such_thing").send(kept(), {})
    assert list(NUMBER.send(kept(), {"number": 3})()) == [(3,)]


def test_a_connection_that_broke_before_it_answered_is_not_used_again(kept: store.Kept) -> None:
    with pytest.raises(store.StoreError) as told:
        END.send(kept(), {})()
    assert told.value.connection_invalidated
    assert list(NUMBER.send(kept(), {"number": 4})()) == [(4,)]


def test_what_was_sent_is_done_though_its_process_is_killed_at_once(engine: store.Engine, database_url: str) -> None:
    """As by an input that ends whoever predicts it: it must be charged."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE sent (n int)"))
    script = """
import os, signal, sys
from tundish import store
from tundish.store.statement import Statement

insert = Statement("INSERT INTO sent VALUES (CAST(:n AS int)) RETURNING n")
for n in range(20):
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    with store.autocommit(store.engine(sys.argv[1])).connect() as connection:
        insert.send(connection, {"n": n})
        os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, database_url], check=True, timeout=60)

    def done() -> list[int]:
        with engine.begin() as connection:
            return list(connection.execute(text("SELECT n FROM sent ORDER BY n")).scalars())

    wait_until(lambda: len(done()) >= 20, "all are there")
    assert done() == list(range(20))
