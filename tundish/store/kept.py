"""Connections that the hot path keeps. To take one from its pool and give it back takes as long as the driver does for
a statement, and statements that go over several connections in turn find the server process of each cold."""

import threading
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from tundish.store.connect import gone

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds after which one that nothing was asked of is looked at before it is used: the server may have closed it.
IDLE = 1.0


class Kept:
    """A connection for each thread that asks, of an engine where each statement commits itself; for verbs that are one
    Statement. One that broke, or that the server has closed, is made anew by the next call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._of_thread = threading.local()
        self._all: list[Connection] = []

    def __call__(self) -> Connection:
        """Raises StoreError."""
        mine, now = self._of_thread, time.monotonic()
        connection: Connection | None = getattr(mine, "connection", None)
        if connection is None:
            connection = mine.connection = self._engine.connect()
            self._all.append(connection)
        elif now > mine.used + IDLE:
            _look(connection)
        mine.used = now
        return connection

    def close(self) -> None:
        """Give them all back, once nothing runs."""
        for connection in self._all:
            connection.close()


class AsyncKept:
    """The same in an event loop, for one who runs a verb after the other."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._used = 0.0

    async def run(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the verb gives; it is committed when this returns. Raises StoreError."""

        def call() -> T:
            now = time.monotonic()
            if self._connection is None:
                self._connection = self._engine.sync_engine.connect()
            elif now > self._used + IDLE:
                _look(self._connection)
            self._used = now
            return verb(self._connection, *args, **kwargs)

        return await greenlet_spawn(call)

    async def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await greenlet_spawn(connection.close)


def _look(connection: Connection) -> None:
    if not connection.invalidated and gone(connection.connection.driver_connection):
        connection.invalidate()
