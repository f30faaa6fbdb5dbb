"""Connections that the hot path keeps. To take one from its pool and give it back takes as long as the driver does for
a statement, and statements that go over several connections in turn find the server process of each cold."""

import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from tundish.store.connect import gone

P = ParamSpec("P")
T = TypeVar("T")


class Kept:
    """A connection for each thread that asks, of an engine where each statement commits itself; for verbs that are one
    Statement. One that broke, or that the server has closed, is made anew by the next call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._of_thread = threading.local()
        self._all: list[Connection] = []

    def __call__(self) -> Connection:
        """Raises StoreError."""
        connection: Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = self._engine.connect()
            self._all.append(connection)
        return _open(connection)

    def close(self) -> None:
        """Give them all back, once nothing runs."""
        for connection in self._all:
            connection.close()


class AsyncKept:
    """The same in an event loop, for one who runs a verb after the other."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    async def run(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the verb gives; it is committed when this returns. Raises StoreError."""

        def call() -> T:
            if self._connection is None:
                self._connection = self._engine.sync_engine.connect()
            return verb(_open(self._connection), *args, **kwargs)

        return await greenlet_spawn(call)

    async def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await greenlet_spawn(connection.close)


def _open(connection: Connection) -> Connection:
    if not connection.invalidated and gone(connection.connection.driver_connection):
        connection.invalidate()
    return connection
