"""Hears one channel of Redis, as cheap as Python has it: the client of a bench must not be what is measured."""

import asyncio
from collections.abc import Callable

from redis.connection import parse_url

Heard = Callable[[bytes], None]


class _Ear(asyncio.Protocol):
    def __init__(self, channel: str, heard: Heard, listens: "asyncio.Future[None]") -> None:
        self._head = b"*3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$" % (len(channel), channel.encode())
        self._heard = heard
        self._listens = listens
        self._held = b""

    def data_received(self, data: bytes) -> None:
        held = self._held + data
        if not self._listens.done():  # this is the answer to the subscription
            self._listens.set_result(None)
            held = b""
        while held.startswith(self._head):
            size, found, rest = held[len(self._head) :].partition(b"\r\n")
            if not found or len(rest) < int(size) + 2:
                break
            self._heard(rest[: int(size)])
            held = rest[int(size) + 2 :]
        self._held = held


async def listen(redis_url: str, channel: str, heard: Heard) -> asyncio.Transport:
    """Call `heard` with what is published, until the transport is closed."""
    loop = asyncio.get_running_loop()
    listens: asyncio.Future[None] = loop.create_future()
    where = parse_url(redis_url)  # type: ignore[no-untyped-call]
    ear = _Ear(channel, heard, listens)
    if "path" in where:
        transport, _ = await loop.create_unix_connection(lambda: ear, where["path"])
    else:
        transport, _ = await loop.create_connection(lambda: ear, where["host"], where.get("port", 6379))
    transport.write(b"SUBSCRIBE %b\r\n" % channel.encode())
    await listens
    return transport
