"""No statement hangs on a server that accepts and then stalls.

`statement_timeout` is kept by the server: one that is stopped, or lost behind a network that swallows bytes, keeps
none, and a cancelled wait would still wait for its answer. So a thread looks at what runs, and shuts the socket of what
has run too long: the driver then sees a broken connection at once, in a thread as in an event loop.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, event

#: Seconds between two looks.
LOOK = 0.5
#: The execution option of an engine that says how many seconds a statement has.
_LIMIT = "tundish_stalled"


class _Guard:
    """The statements that are on their way, by the driver's connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: dict[int, tuple[float, Any]] = {}
        threading.Thread(target=self._run, name="stall", daemon=True).start()

    def begin(self, driver: Any, limit: float) -> None:
        with self._lock:
            self._deadlines[id(driver)] = (time.monotonic() + limit, driver)

    def end(self, driver: Any) -> None:
        with self._lock:
            self._deadlines.pop(id(driver), None)

    def _run(self) -> None:
        while True:
            time.sleep(LOOK)
            with self._lock:
                now = time.monotonic()
                late = [key for key, (deadline, _) in self._deadlines.items() if deadline < now]
                for key in late:
                    _shut(self._deadlines.pop(key)[1])


def _shut(driver: Any) -> None:
    with suppress(Exception):  # it may be closed by now
        copy = socket.socket(fileno=os.dup(driver.pgconn.socket))
        with copy:
            copy.shutdown(socket.SHUT_RDWR)


@cache
def _guard() -> _Guard:
    """One a process, with the first engine."""
    return _Guard()


def guard(engine: Engine, limit: float) -> None:
    """Give up each statement and commit of `engine` after `limit` seconds, with a StoreError. It should be over the
    server's own time-out."""
    running = _guard()
    engine.update_execution_options(**{_LIMIT: limit})

    def begin(connection: Connection, *_: object) -> None:
        running.begin(connection.connection.driver_connection, connection.get_execution_options()[_LIMIT])

    def end(connection: Connection, *_: object) -> None:
        running.end(connection.connection.driver_connection)

    def returned(_: object, record: Any) -> None:
        running.end(record.driver_connection)

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "commit", begin)
    event.listen(engine, "checkin", returned)
    event.listen(engine, "close", returned)


@contextmanager
def watched(connection: Connection) -> Iterator[None]:
    """The same for a statement that goes past SQLAlchemy, run in this block."""
    driver = connection.connection.driver_connection
    _guard().begin(driver, connection.get_execution_options()[_LIMIT])
    try:
        yield
    finally:
        _guard().end(driver)
