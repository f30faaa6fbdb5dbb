"""Statements of the hot path, handed to the driver as they are.

Engines, pools and transactions are SQLAlchemy's. What it does around one execution takes 0.05 ms in a thread and 0.1 in
an event loop, half of what Postgres needs for the job: these spare it, and fail as SQLAlchemy's own do.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import psycopg
from psycopg.generators import execute
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from tundish.store import stall
from tundish.store.arrays import ARRAYS, Array
from tundish.store.connect import bare, demoted


class _ArrayDumper(psycopg.adapt.Dumper):
    """As it is."""

    format = psycopg.pq.Format.BINARY

    def dump(self, obj: Array) -> Array:
        return obj


for _of in ARRAYS:
    psycopg.adapters.register_dumper(_of, type("_ArrayDumper", (_ArrayDumper,), {"oid": _of.oid}))

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]
_NUMBERED = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

Tuples = Sequence[tuple[Any, ...]]


class Statement:
    """One statement, with parameters `:name` as `sqlalchemy.text` has them."""

    def __init__(self, sql: str) -> None:
        self._text = text(sql)
        self._sql = str(self._text.compile(dialect=_DIALECT))

    def rows(self, connection: Connection, given: Mapping[str, object]) -> Tuples:
        """Run it; its rows as the driver has them. Raises StoreError, and RowError where a parameter does not fit."""
        driver: Any = connection.connection.driver_connection
        with self._telling(connection):
            if isinstance(driver, psycopg.AsyncConnection):
                return await_only(self._rows(driver, given))
            # In binary a payload comes as it is, not as hexadecimal digits.
            return driver.execute(self._sql, given, binary=True).fetchall()  # type: ignore[no-any-return]

    async def _rows(self, driver: "psycopg.AsyncConnection[Any]", given: Mapping[str, object]) -> Tuples:
        cursor = await driver.execute(self._sql, given, binary=True)
        return await cursor.fetchall()

    def send(self, connection: Connection, given: Mapping[str, object]) -> Callable[[], Tuples]:
        """Send it, over a connection of a thread, and do not wait: who calls what this returns waits for its rows, and
        must do so before anything else is asked of the connection. Parameters go as text. Both raise StoreError."""
        driver: Any = connection.connection.driver_connection
        name, sql, parameters = self._numbered
        values = [str(given[each]).encode() for each in parameters]
        with self._telling(connection):
            if self not in connection.info:
                _checked(driver.pgconn.prepare(name, sql))
                connection.info[self] = True
            driver.pgconn.send_query_prepared(name, values, result_format=psycopg.pq.Format.BINARY)
            driver.pgconn.flush()
        return partial(self._answer, connection)

    @cached_property
    def _numbered(self) -> tuple[bytes, bytes, Sequence[str]]:
        """As libpq takes it: a name, the statement with `$1`, and whose values these are."""
        numbered = self._text.compile(dialect=_NUMBERED)
        return f"tundish_{id(self)}".encode(), str(numbered).encode(), numbered.positiontup or []

    def _answer(self, connection: Connection) -> Tuples:
        driver: Any = connection.connection.driver_connection
        with self._telling(connection):
            (result,) = driver.wait(execute(driver.pgconn))  # which sends what is left of it
            rows = psycopg.adapt.Transformer(driver)
            rows.set_pgresult(_checked(result))
            return rows.load_rows(0, result.ntuples, tuple)

    @contextmanager
    def _telling(self, connection: Connection) -> Iterator[None]:
        """A statement of this block does not hang, and fails as SQLAlchemy tells it."""
        with stall.watched(connection):
            try:
                yield
            except BaseException as error:
                raise self._told(connection, error) from error

    def _told(self, connection: Connection, error: BaseException) -> BaseException:
        """The error as SQLAlchemy tells it. A connection that broke, was left in the middle, or leads to a server that
        takes no writes is used no more."""
        driver, dialect = connection.connection.dbapi_connection, connection.dialect
        errors: type[Exception] = dialect.loaded_dbapi.Error
        known = isinstance(error, errors)
        gone = not known or demoted(error) or dialect.is_disconnect(error, driver, None)  # type: ignore[arg-type]
        if gone:
            if known:  # the server went away: those that are older are broken, too
                connection.engine.pool._invalidate(connection.connection, error)
            connection.invalidate(error)
        if not known:
            return error
        told = DBAPIError.instance(
            self._sql, None, error, errors, hide_parameters=True, connection_invalidated=gone, dialect=dialect
        )
        assert isinstance(told, BaseException)
        if gone:
            bare(told)
        return told


def _checked(result: Any) -> Any:
    """Raises psycopg.Error where Postgres refused the statement."""
    if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result)
    return result
