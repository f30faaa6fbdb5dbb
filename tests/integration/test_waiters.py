"""Who waits for notices, through a real Valkey: a subscription is there while somebody waits, and misses nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from uuid import UUID

import pytest
import redis
import redis.asyncio

from api.waiters import Bells, Waiters
from tests.local import Local, wait_until
from tundish import store
from tundish.ids import new_uuid
from workers import connect

CHANNEL = "test:waiters"


@pytest.fixture
def url(system: Local) -> str:
    return str(system.ps()["valkey"]["url"])


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with connect.redis_client(url) as client:
        yield client


def tell(client: redis.Redis, *ids: UUID) -> int:
    """How many heard it."""
    return int(client.publish(CHANNEL, b"".join(id.bytes for id in ids)))


async def until(found: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(wait_until, lambda: found() or None, what)


def with_bells(url: str, scene: Callable[[Bells], Awaitable[None]]) -> None:
    """A scene beside bells that listen."""

    async def run() -> None:
        async with redis.asyncio.Redis.from_url(url, client_name=CHANNEL) as client:
            bells = Bells(client, CHANNEL)
            listening = asyncio.create_task(bells.run())
            try:
                await scene(bells)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    asyncio.run(run())


def test_nobody_listens_where_nobody_waits(url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.waiters.LINGER", 0.0)
    monkeypatch.setattr("api.waiters.LOOK", 0.01)

    async def scene(bells: Bells) -> None:
        for _ in range(2):
            assert tell(client) == 0
            with bells.waiting(new_uuid()):
                await until(lambda: tell(client) == 1, "it listens")
            await until(lambda: tell(client) == 0, "it listens no more")

    with_bells(url, scene)


def test_the_one_who_is_meant_wakes(url: str, client: redis.Redis) -> None:
    async def scene(bells: Bells) -> None:
        id, other = new_uuid(), new_uuid()
        with bells.waiting(id) as bell, bells.waiting(other) as others:
            await asyncio.wait_for(asyncio.gather(bell.wait(), others.wait()), 10)  # the subscription begins
            bell.clear()
            others.clear()
            assert tell(client, new_uuid(), id) == 1
            await asyncio.wait_for(bell.wait(), 10)
            assert not others.is_set()

    with_bells(url, scene)


def test_who_waits_looks_again_whenever_notices_may_have_been_missed(url: str, client: redis.Redis) -> None:
    async def scene(bells: Bells) -> None:
        with bells.waiting(new_uuid()) as bell:
            await asyncio.wait_for(bell.wait(), 10)
            bell.clear()
            [ours] = [each["id"] for each in client.client_list(_type="pubsub") if each["name"] == CHANNEL]
            client.client_kill_filter(_id=ours)
            await asyncio.wait_for(bell.wait(), 10)
            assert tell(client) == 1

    with_bells(url, scene)


def test_who_waits_for_a_job_that_was_deleted_before_the_first_look_wakes(
    url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.waiters.LOOK", 0.01)

    async def scene() -> None:
        engine = store.async_engine(database_url)
        async with redis.asyncio.Redis.from_url(url) as client:
            waiters = Waiters(client)
            looking = asyncio.create_task(waiters.look(engine))
            with waiters.waiting(new_uuid()) as bell:
                await asyncio.wait_for(bell.wait(), 10)
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        await engine.dispose()

    asyncio.run(scene())
