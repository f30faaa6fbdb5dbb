"""Notify: after the commit. Redis only wakes who waits, and the courier; a slow look finds what it forgets."""

import logging
import threading
from collections.abc import Sequence
from uuid import UUID

import redis

from tundish import queue

log = logging.getLogger(__name__)

#: A command as redis-py packs it.
_Command = tuple[str | bytes, ...]


def notify(client: redis.Redis, ids: Sequence[UUID], *, webhooks: bool = True) -> None:
    """Wake the long polls of finished jobs; and the courier, where there may be `webhooks` of them."""
    if not ids:
        return
    try:
        for command in _commands(ids, webhooks):
            client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's
    except redis.RedisError as error:
        _forgotten(error)


class Notifier:
    """The same for who does so after every batch: over a connection of its own, whose answers are read before the next
    notice. To wait for each took half of the time of the thread that records, beside Postgres."""

    def __init__(self, client: redis.Redis) -> None:
        self._connection = client.connection_pool.make_connection()
        self._open = False
        self._unread = 0
        self._turn = threading.Lock()

    def __call__(self, ids: Sequence[UUID], *, webhooks: bool) -> None:
        """From any thread."""
        if not ids:
            return
        commands = _commands(ids, webhooks)
        with self._turn:
            try:
                self._read()
                packed = self._connection.pack_commands(commands)  # type: ignore[no-untyped-call]
                self._connection.send_packed_command(packed, check_health=False)  # type: ignore[no-untyped-call]
                self._open, self._unread = True, len(commands)
            except (redis.RedisError, OSError) as error:
                self._hang_up()
                _forgotten(error)

    def _read(self) -> None:
        """What Redis answered to the last notice. It may have closed the connection since, and is called again then."""
        while self._unread:
            self._unread -= 1
            try:
                self._connection.read_response()
            except redis.ResponseError as error:
                _forgotten(error)
            except (redis.RedisError, OSError) as error:
                self._hang_up()
                _forgotten(error)
        try:
            ended = self._open and self._connection.can_read()  # nothing is expected but the end of it
        except (redis.RedisError, OSError):
            ended = True
        if ended:
            self._hang_up()

    def _hang_up(self) -> None:
        self._open, self._unread = False, 0
        self._connection.disconnect()  # type: ignore[no-untyped-call]


def _commands(ids: Sequence[UUID], webhooks: bool) -> list[_Command]:
    done: _Command = ("PUBLISH", queue.DONE, b"".join(id.bytes for id in ids))
    return [done, ("PUBLISH", queue.OUTBOX, b"")] if webhooks else [done]


def _forgotten(error: Exception) -> None:
    log.warning("finished jobs were not announced, their long polls and webhooks wait for a look: %s", error)
