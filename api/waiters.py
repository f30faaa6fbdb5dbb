"""Who waits for news of a job: notices through Redis wake them, and a slow central poll backs those of a job's end.

A process subscribes to notices of jobs while somebody waits, and little longer: each is a wake-up, a sixth of what a
lone job took of the API.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import redis.asyncio

from tundish import queue, store

log = logging.getLogger(__name__)

#: Seconds between two polls for what Redis did not tell.
LOOK = 2.0
#: Jobs of one statement of the poll: the statements are spread over LOOK, so that who they wake does not wake at once.
ROWS = 100
#: Seconds that a subscription outlives the last who waited: the next one is seldom long in coming.
LINGER = 10.0


async def hear(
    client: redis.asyncio.Redis,
    channel: str,
    heard: Callable[[bytes], None],
    begun: Callable[[], None],
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Call `heard` with each notice of a channel, until none is wanted any more; `begun` whenever notices come from
    then on, and may have been missed before."""
    away = False
    while wanted():
        try:
            async with client.pubsub() as subscription:
                await subscription.subscribe(channel)
                while wanted():
                    message = await subscription.get_message(timeout=LOOK)
                    if message and message["type"] == "message":
                        heard(message["data"])
                    elif message:
                        away = False
                        begun()
        except Exception as error:  # a cut connection shows as almost anything
            if not away:
                log.warning("what %s tells comes late, Redis does not answer: %r", channel, error)
            away = True
            await asyncio.sleep(1)


class Bells:
    """Who waits for which job, woken by the notices of a channel. Register before reading: what happens between the two
    is not missed."""

    def __init__(self, client: redis.asyncio.Redis, channel: str) -> None:
        self._client = client
        self._channel = channel
        self._bells: dict[bytes, set[asyncio.Event]] = {}  # by the bytes of the ids, as a notice has them
        self._somebody = asyncio.Event()
        self._wanted_until = 0.0

    @contextmanager
    def waiting(self, id: UUID, *bells: asyncio.Event) -> Iterator[asyncio.Event]:
        """An event that is set when there may be news of the job: the first of `bells`, which all are set, or a new
        one."""
        bells, key = bells or (asyncio.Event(),), id.bytes
        self._bells.setdefault(key, set()).update(bells)
        self._somebody.set()
        try:
            yield bells[0]
        finally:
            self._bells[key].difference_update(bells)
            if not self._bells[key]:
                del self._bells[key]

    async def run(self) -> None:
        """Listen whenever somebody waits, until cancelled."""
        while True:
            await self._somebody.wait()
            # Who waits already when it begins may have missed a notice, and looks again.
            await hear(self._client, self._channel, self.told, self.ring_all, self._wanted)

    def _wanted(self) -> bool:
        now = time.monotonic()
        if self._bells:
            self._wanted_until = now + LINGER
        elif now >= self._wanted_until:
            self._somebody.clear()
        return self._somebody.is_set()

    def ring(self, id: UUID) -> None:
        """Wake who waits for a job in this process."""
        self._ring(id.bytes)

    def ring_all(self) -> None:
        """Wake everybody."""
        for key in self._bells:
            self._ring(key)

    def told(self, ids: bytes) -> None:
        """A notice of jobs, 16 bytes each."""
        if self._bells:
            for at in range(0, len(ids), 16):
                self._ring(ids[at : at + 16])

    def _ring(self, key: bytes) -> None:
        for bell in self._bells.get(key, ()):
            bell.set()


class Waiters(Bells):
    """Who waits for a job's end."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        super().__init__(client, queue.DONE)
        self._seen: dict[UUID, store.State | None] = {}
        self.stopped = False

    def stop(self) -> None:
        """Wake everybody for the last time: this process ends, nobody waits any longer."""
        self.stopped = True
        self.ring_all()

    async def look(self, engine: store.AsyncEngine) -> None:
        """Every LOOK seconds wake those whose job has moved since the look before, until cancelled."""
        while True:
            self._seen = {id: state for id, state in self._seen.items() if id.bytes in self._bells}
            ids = [UUID(bytes=key) for key in self._bells]
            pages = [ids[at : at + ROWS] for at in range(0, len(ids), ROWS)] or [[]]
            for page in pages:
                await asyncio.sleep(LOOK / len(pages))
                if page:
                    await self._look(engine, page)

    async def _look(self, engine: store.AsyncEngine, ids: list[UUID]) -> None:
        try:
            states = await store.run(engine, store.states, ids)
        except store.AWAY as error:
            log.warning("cannot look for jobs that have moved: %s", error)
            return
        for id in ids:
            state = states.get(id)
            if id not in self._seen or self._seen[id] != state:  # one that is gone at the first look has moved too
                self._seen[id] = state
                self.ring(id)
