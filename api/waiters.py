"""Long polls: one Redis subscription a process wakes who waits for a job's end, and a slow poll backs it. It carries
the notices of other channels too."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import redis.asyncio
from redis import RedisError

from tundish import queue

log = logging.getLogger(__name__)

#: Seconds after which everybody who waits looks again, whatever Redis said.
LOOK = 2.0


class Waiters:
    """Who waits for which job. Register before reading the row: an end between the two is not missed."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._bells: dict[UUID, set[asyncio.Event]] = {}
        self._heard: dict[str, Callable[[bytes], None]] = {queue.DONE: self._ended}

    def hear(self, channel: str, heard: Callable[[bytes], None]) -> None:
        """Call `heard` with each notice of a channel. Before `run`."""
        self._heard[channel] = heard

    @contextmanager
    def waiting(self, id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set when the job may have ended."""
        bell = asyncio.Event()
        self._bells.setdefault(id, set()).add(bell)
        try:
            yield bell
        finally:
            self._bells[id].discard(bell)
            if not self._bells[id]:
                del self._bells[id]

    def ring(self, id: UUID) -> None:
        """Wake who waits for a job in this process."""
        for bell in self._bells.get(id, ()):
            bell.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(*self._heard)
                    while True:
                        message = await subscription.get_message(timeout=LOOK)
                        if message:
                            self._heard[message["channel"].decode()](message["data"])
            except (RedisError, OSError) as error:
                log.warning("long polls wake slowly, Redis does not answer: %s", error)
                await asyncio.sleep(1)

    def _ended(self, data: bytes) -> None:
        for at in range(0, len(data), 16):
            self.ring(UUID(bytes=data[at : at + 16]))

    async def look(self) -> None:
        """Wake everybody every LOOK seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            for id in list(self._bells):
                self.ring(id)
