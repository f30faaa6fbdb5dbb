"""Statements of the hot path, handed to the driver as they are.

Engines, pools and transactions are SQLAlchemy's. What it does around one execution takes 0.05 ms in a thread and 0.1 in
an event loop, half of what Postgres needs for the job: these spare it, and fail as SQLAlchemy's own do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from tundish.store import stall
from tundish.store.arrays import ARRAYS, Array
from tundish.store.connect import bare


class _ArrayDumper(psycopg.adapt.Dumper):
    """As it is."""

    format = psycopg.pq.Format.BINARY

    def dump(self, obj: Array) -> Array:
        return obj


for _of in ARRAYS:
    psycopg.adapters.register_dumper(_of, type("_ArrayDumper", (_ArrayDumper,), {"oid": _of.oid}))

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


class Statement:
    """One statement, with parameters `:name` as `sqlalchemy.text` has them."""

    def __init__(self, sql: str) -> None:
        self._sql = str(text(sql).compile(dialect=_DIALECT))

    def rows(self, connection: Connection, given: Mapping[str, object]) -> Sequence[tuple[Any, ...]]:
        """Run it; its rows as the driver has them. Raises StoreError, and RowError where a parameter does not fit."""
        driver: Any = connection.connection.driver_connection
        with stall.watched(connection):
            try:
                if isinstance(driver, psycopg.AsyncConnection):
                    return await_only(self._rows(driver, given))
                # In binary a payload comes as it is, not as hexadecimal digits.
                return driver.execute(self._sql, given, binary=True).fetchall()  # type: ignore[no-any-return]
            except BaseException as error:
                raise self._told(connection, error) from error

    async def _rows(
        self, driver: "psycopg.AsyncConnection[Any]", given: Mapping[str, object]
    ) -> Sequence[tuple[Any, ...]]:
        cursor = await driver.execute(self._sql, given, binary=True)
        return await cursor.fetchall()

    def _told(self, connection: Connection, error: BaseException) -> BaseException:
        """The error as SQLAlchemy tells it. A connection that broke, or was left in the middle, is used no more."""
        driver, dialect = connection.connection.dbapi_connection, connection.dialect
        errors: type[Exception] = dialect.loaded_dbapi.Error
        known = isinstance(error, errors)
        gone = not known or dialect.is_disconnect(error, driver, None)  # type: ignore[arg-type]
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
