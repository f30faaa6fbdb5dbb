"""Messages to a real Redis that stalls, or hangs up."""

import asyncio

import pytest
import redis

from api.sender import Sender
from tests.local import Local


@pytest.fixture
def url(system: Local) -> str:
    return str(system.ps()["valkey"]["url"])


@pytest.fixture
def client(url: str) -> "redis.Redis":
    found = redis.Redis.from_url(url)
    found.delete("sent", "other")
    return found


def test_all_lists_are_pushed_to(url: str, client: "redis.Redis") -> None:
    async def run() -> None:
        sender = Sender(url)
        await sender.push({"sent": [b"1", b"2"], "other": [b"3"]})
        await asyncio.gather(*(sender.push({"sent": [b"%d" % number]}) for number in range(4, 8)))
        await sender.push({})
        await sender.close()

    asyncio.run(run())
    assert client.lrange("sent", 0, -1) == [b"7", b"6", b"5", b"4", b"2", b"1"]
    assert client.lrange("other", 0, -1) == [b"3"]


def test_a_connection_that_redis_closed_is_made_anew(url: str, client: "redis.Redis") -> None:
    async def run() -> None:
        sender = Sender(url)
        await sender.push({"sent": [b"1"]})
        newest = max(int(each["id"]) for each in client.client_list() if each["cmd"] == "lpush")
        client.client_kill_filter(_id=str(newest))
        await sender.push({"sent": [b"2"]})
        await sender.close()

    asyncio.run(run())
    assert client.lrange("sent", 0, -1) == [b"2", b"1"]


def test_who_gave_up_leaves_no_answer_to_the_next(url: str, client: "redis.Redis") -> None:
    async def run() -> None:
        sender = Sender(url)
        await sender.push({"sent": [b"1"]})
        client.client_pause(10_000, all=False)
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await sender.push({"sent": [b"2"]})
        finally:
            client.client_unpause()
        client.set("other", "no list")
        with pytest.raises(redis.ResponseError):
            await sender.push({"other": [b"3"], "sent": [b"4"]})
        with pytest.raises(redis.ResponseError):  # this one's own answer, not what was left of the last
            await sender.push({"other": [b"3"]})
        await sender.push({"sent": [b"5"]})
        await sender.close()

    asyncio.run(run())
    assert client.lrange("sent", 0, -1)[0] == b"5"
