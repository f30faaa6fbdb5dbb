"""The parts of one running API: made once, shared by the routes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

import redis.asyncio

from api.flush import Flush
from api.models import Models
from api.once import Once
from api.options import Rules
from api.reads import Reads
from api.submit import Submitter
from api.waiters import Waiters
from tundish import outbound, queue, store
from tundish.blobs import Blobs, open_blobs
from tundish.errors import Unavailable
from tundish.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Writers have a pool of their own: reads cannot starve them."""

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
    waiters: Waiters
    submitter: Submitter

    async def run(self, verb: Callable[Concatenate[store.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A verb of the store. Raises Unavailable where Postgres does not answer."""
        try:
            return await store.run(self.readers, verb, *args, **kwargs)
        except (store.StoreError, store.PoolTimeout, OSError) as error:
            log.warning("Postgres does not answer: %s", error)
            raise Unavailable("unavailable", "the database does not answer; try again", retry_after=2) from error

    async def change(
        self, verb: Callable[Concatenate[store.Connection, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """A verb that changes the catalog. When this returns the change is committed, this process goes by it, and the
        others were told; one that Redis cannot tell looks within 2 s. Raises Unavailable."""
        await self.run(verb, *args, **kwargs)
        with suppress(Exception):
            async with asyncio.timeout(1):
                await self.client.publish(queue.CATALOG, b"")
        await self.models.refresh()

    async def tell(self, id: UUID) -> None:
        """Wake who waits for a job, in every process."""
        self.waiters.ring(id)
        with suppress(Exception):  # the slow look finds it
            await self.client.publish(queue.DONE, id.bytes)


def build(settings: Settings) -> Parts:
    """Connects to nothing yet. Raises SettingError."""
    writers = store.async_engine(settings.database_url, 2)
    readers = store.async_engine(settings.database_url, 8)
    keyed = store.async_engine(settings.database_url, 4)
    asked = store.async_engine(settings.database_url, 2, by_ids=True)
    client = redis.asyncio.Redis.from_url(
        settings.redis_url, socket_timeout=5, socket_connect_timeout=5, health_check_interval=15
    )
    blobs = open_blobs(settings)
    models = Models(readers, seen_within=settings.lease)
    waiters = Waiters(client)
    waiters.hear(queue.CATALOG, models.changed)
    rules = Rules(settings.retention, outbound.networks(settings.outbound_allow))
    return Parts(
        settings=settings,
        writers=writers,
        readers=readers,
        client=client,
        blobs=blobs,
        models=models,
        # The only attempt is the last one, and that is alone.
        flush=Flush(writers, client, alone=settings.max_attempts == 1),
        once=Once(keyed),
        keyed=keyed,
        asked=asked,
        reads=Reads(asked),
        waiters=waiters,
        submitter=Submitter(models, blobs, rules, settings.inline_max),
    )


@asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """The loops behind the routes run inside this block. One that breaks is a bug: it is logged and started again."""
    loops = [parts.flush.run, parts.reads.run, parts.waiters.run, parts.waiters.look, parts.models.run]
    tasks = [asyncio.create_task(_forever(loop)) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.client.aclose()
        await parts.writers.dispose()
        await parts.keyed.dispose()
        await parts.asked.dispose()
        await parts.readers.dispose()


async def _forever(loop: Callable[[], object]) -> None:
    while True:
        try:
            await loop()  # type: ignore[misc]  # each is a coroutine function
        except Exception:
            log.exception("a loop of the API broke and is started again")
            await asyncio.sleep(0.1)
