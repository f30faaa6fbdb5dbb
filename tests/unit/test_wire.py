"""Who is hung up on for not reading."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from api.wire import PATIENCE, Protocol


class Client(asyncio.Transport):
    """Takes what a test says."""

    waiting = 0
    aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


class Clock:
    """A loop whose timers a test rings."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> "Clock":
        self.timers.append((seconds, lambda: call(*args)))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def ring(self) -> None:
        [(seconds, call)] = self.timers
        assert seconds == PATIENCE
        self.timers.clear()
        call()


def connected() -> tuple[Protocol, Client, Clock]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nothing is asked here")

    clock, client = Clock(), Client()
    protocol = Protocol(Config(app), ServerState(), {}, cast(asyncio.AbstractEventLoop, clock))
    protocol.connection_made(client)
    return protocol, client, clock


def test_a_client_that_takes_nothing_is_hung_up_on_and_one_that_takes_a_little_is_not() -> None:
    protocol, client, clock = connected()
    client.waiting = 100_000
    protocol.pause_writing()
    for left in (99_999, 70_000):
        client.waiting = left
        clock.ring()
        assert not client.aborted
    clock.ring()
    assert client.aborted
    assert not clock.timers


def test_nobody_looks_at_a_client_that_reads_or_is_gone() -> None:
    protocol, _, clock = connected()
    protocol.pause_writing()
    protocol.resume_writing()
    assert not clock.timers
    protocol.pause_writing()
    protocol.connection_lost(ConnectionResetError())
    assert not clock.timers
