"""The parts of one running API: made once, shared by the routes."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

import redis.asyncio

from api import database
from api.flush import Flush
from api.http import no_such_job
from api.lineup import Models
from api.once import Once
from api.options import Rules
from api.pins import Pins
from api.reads import Reads
from api.sender import Sender
from api.streams import Streams
from api.submit import Submitter
from api.waiters import Bells, Waiters, hear
from tundish import events, queue, store
from tundish.blobs import Blobs, open_blobs
from tundish.ids import seconds_of
from tundish.settings import Settings
from tundish.tasks import end

P = ParamSpec("P")
T = TypeVar("T")
Loop = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)

#: Seconds that Redis has to tell others what a request has done; without it they look for themselves.
TELL = 1.0


@dataclass(frozen=True)
class Parts:
    """Each kind of statement has a pool of its own, so that none starves another: `writers` store jobs, `keyed` those
    with an Idempotency-Key, `asked` reads jobs by their ids, `readers` do all else."""

    settings: Settings
    writers: store.AsyncEngine
    readers: store.AsyncEngine
    client: redis.asyncio.Redis
    blobs: Blobs
    models: Models
    flush: Flush
    once: Once
    keyed: store.AsyncEngine
    asked: store.AsyncEngine
    reads: Reads
    waiters: Waiters  # for a job's end
    listeners: Bells  # for its events
    streams: Streams
    submitter: Submitter
    pins: Pins
    rules: Rules

    async def run(self, verb: Callable[Concatenate[store.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A verb of the store. Raises Unavailable where Postgres does not answer."""
        return await database.run(self.readers, verb, *args, **kwargs)

    async def change(
        self, verb: Callable[Concatenate[store.Connection, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """A verb that changes the catalog. When this returns the change is committed, this process goes by it, and the
        others were told; one that Redis cannot tell looks within 2 s. Raises Unavailable."""
        await self.run(verb, *args, **kwargs)
        with suppress(Exception):
            async with asyncio.timeout(TELL):
                await self.client.publish(queue.CATALOG, b"")
        await self.models.refresh()

    @property
    def oldest(self) -> datetime:
        """What is older is past the retention, and not shown any more."""
        return datetime.now(UTC) - timedelta(seconds=self.settings.retention)

    def in_retention(self, id: UUID) -> None:
        """Retention holds to the second, though rows go by the day. Raises NotFound."""
        if seconds_of(id) < time.time() - self.settings.retention:
            raise no_such_job()

    async def job(self, tenant: int, id: UUID) -> store.JobRow:
        """A job as it is now. Raises NotFound and Unavailable."""
        self.in_retention(id)
        job = await self.reads.get(id, tenant)
        if job is None:
            raise no_such_job()
        return job

    async def tell(self, id: UUID) -> None:
        """Wake who waits for a job, in every process, and the courier."""
        self.waiters.ring(id)
        with suppress(Exception):  # the slow look finds it
            async with asyncio.timeout(TELL):
                await self.client.publish(queue.DONE, id.bytes)
                await self.client.publish(queue.OUTBOX, b"")


def build(settings: Settings) -> Parts:
    """Connects to nothing yet. Raises SettingError."""
    writers = store.async_engine(settings.database_url, 2, autocommit=True)
    readers = store.async_engine(settings.database_url, 8)
    keyed = store.async_engine(settings.database_url, 4)
    asked = store.async_engine(settings.database_url, 2, by_ids=True, autocommit=True)
    client = redis.asyncio.Redis.from_url(
        settings.redis_url, socket_timeout=5, socket_connect_timeout=5, health_check_interval=15
    )
    blobs = open_blobs(settings)
    models = Models(readers, seen_within=settings.lease)
    rules = Rules(settings.retention, settings.outbound_allow)
    pins = Pins(readers, blobs, settings.retention)
    return Parts(
        settings=settings,
        writers=writers,
        readers=readers,
        client=client,
        blobs=blobs,
        models=models,
        # The only attempt is the last one, and that is alone.
        flush=Flush(writers, Sender(settings.redis_url), alone=settings.max_attempts == 1),
        once=Once(keyed, settings.public_url, settings.retention),
        keyed=keyed,
        asked=asked,
        reads=Reads(asked),
        waiters=Waiters(client),
        listeners=Bells(client, events.CHANNEL),
        streams=Streams(client),
        submitter=Submitter(models, blobs, pins, rules, inline_max=settings.inline_max, max_body=settings.max_body),
        pins=pins,
        rules=rules,
    )


@asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """The loops behind the routes run inside this block. One that breaks is a bug: it is logged and started again."""
    loops: list[Loop] = [
        parts.flush.run,
        parts.reads.run,
        parts.streams.run,
        parts.waiters.run,
        partial(parts.waiters.look, parts.asked),
        parts.listeners.run,
        parts.models.run,
        partial(hear, parts.client, queue.CATALOG, parts.models.changed, parts.models.changed),
    ]
    tasks = [asyncio.create_task(_forever(loop)) for loop in loops]
    try:
        yield
    finally:
        await end(tasks)
        await parts.flush.close()
        await parts.reads.close()
        await parts.client.aclose()
        await parts.writers.dispose()
        await parts.keyed.dispose()
        await parts.asked.dispose()
        await parts.readers.dispose()


async def _forever(loop: Loop) -> None:
    while True:
        try:
            await loop()
        except Exception:
            log.exception("a loop of the API broke and is started again")
            await asyncio.sleep(0.1)
