"""Who waits for news of a job: one Redis subscription a process wakes them, and a slow central poll backs it. The
subscription carries the notices of other channels too."""

import asyncio
import logging
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


class Bells:
    """Who waits for which job. Register before reading: what happens between the two is not missed."""

    def __init__(self) -> None:
        self._bells: dict[bytes, set[asyncio.Event]] = {}  # by the bytes of the ids, as a notice has them

    @contextmanager
    def waiting(self, id: UUID, *bells: asyncio.Event) -> Iterator[asyncio.Event]:
        """An event that is set when there may be news of the job: the first of `bells`, which all are set, or a new
        one."""
        bells, key = bells or (asyncio.Event(),), id.bytes
        self._bells.setdefault(key, set()).update(bells)
        try:
            yield bells[0]
        finally:
            self._bells[key].difference_update(bells)
            if not self._bells[key]:
                del self._bells[key]

    def ring(self, id: UUID) -> None:
        """Wake who waits for a job in this process."""
        self._ring(id.bytes)

    def told(self, ids: bytes) -> None:
        """A notice of jobs, 16 bytes each."""
        if self._bells:
            for at in range(0, len(ids), 16):
                self._ring(ids[at : at + 16])

    def _ring(self, key: bytes) -> None:
        for bell in self._bells.get(key, ()):
            bell.set()


class Waiters(Bells):
    """Who waits for a job's end, and the subscription."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        super().__init__()
        self._client = client
        self._heard: dict[str, Callable[[bytes], None]] = {queue.DONE: self.told}
        self._seen: dict[UUID, store.State | None] = {}
        self.stopped = False

    def hear(self, channel: str, heard: Callable[[bytes], None]) -> None:
        """Call `heard` with each notice of a channel. Before `run`."""
        self._heard[channel] = heard

    def stop(self) -> None:
        """Wake everybody for the last time: this process ends, nobody waits any longer."""
        self.stopped = True
        for key in self._bells:
            self._ring(key)

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
            except Exception as error:  # a cut connection shows as almost anything
                log.warning("who waits wakes slowly, Redis does not answer: %r", error)
                await asyncio.sleep(1)

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
        except (store.StoreError, store.PoolTimeout, OSError) as error:
            log.warning("cannot look for jobs that have moved: %s", error)
            return
        for id in ids:
            if self._seen.get(id) != (state := states.get(id)):
                self._seen[id] = state
                self.ring(id)
