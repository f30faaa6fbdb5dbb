"""Who is hung up on for not reading."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from api.wire import PATIENCE, Protocol

#: Seconds that a connection is kept without a request.
IDLE = 75


class Client(asyncio.Transport):
    """Takes what a test says."""

    waiting = 0
    aborted = False
    closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Clock:
    """A loop whose timers a test rings."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> "Clock":
        self.timers.append((seconds, lambda: call(*args)))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def ring(self, after: float = PATIENCE) -> None:
        [(seconds, call)] = self.timers
        assert seconds == after
        self.now += seconds
        self.timers.clear()
        call()


def connected() -> tuple[Protocol, Client, Clock]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nothing is asked here")

    clock, client = Clock(), Client()
    protocol = Protocol(Config(app, timeout_keep_alive=IDLE), ServerState(), {}, cast(asyncio.AbstractEventLoop, clock))
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


def test_a_connection_is_kept_for_a_while_after_its_last_answer() -> None:
    protocol, client, clock = connected()
    protocol.on_response_complete()
    clock.now = 50
    protocol.on_response_complete()
    clock.now = 0
    clock.ring(IDLE)
    assert not client.closed
    clock.ring(50)
    assert client.closed
    assert clock.now == IDLE + 50


def test_who_is_about_to_say_more_is_not_idle() -> None:
    protocol, client, clock = connected()
    protocol.on_response_complete()
    protocol.data_received(b"GET /v1/jo")
    clock.ring(IDLE)
    assert not client.closed
    assert not clock.timers
    protocol.on_response_complete()
    clock.ring(IDLE)
    assert client.closed
