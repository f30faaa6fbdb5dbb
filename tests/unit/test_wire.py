"""Who is hung up on for not reading, and who for not going on."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from api.wire import HEAD_MAX, PATIENCE, Protocol

#: Seconds that a connection is kept without a request.
IDLE = 75


class Client(asyncio.Transport):
    """Takes what a test says."""

    waiting = 0
    aborted = False
    closed = False
    took = b""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write(self, data: bytes) -> None:  # type: ignore[override]  # all that is written here
        self.took += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Clock:
    """A loop whose timers a test rings."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., None], *args: Any) -> None:
        pass  # it was flushed by then

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
    clock.timers.clear()  # of who has not asked yet
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
    clock.timers.clear()
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


def test_a_connection_goes_at_once_with_all_that_it_held() -> None:
    """Thousands of them come and go between two looks of the garbage collector."""
    gc.disable()
    try:
        protocol, _, _ = connected()
        gone = weakref.ref(protocol)
        protocol.connection_lost(None)
        del protocol
        assert gone() is None
    finally:
        gc.enable()


def test_who_is_about_to_say_more_is_not_idle() -> None:
    protocol, client, clock = connected()
    protocol.on_response_complete()
    clock.now = IDLE - 1
    protocol.data_received(b"GET /v1/jo")
    clock.now = 0
    clock.ring(IDLE)
    assert not client.closed


@pytest.mark.parametrize("said", [b"", b"GET /v1/jo"], ids=["never begins", "does not go on"])
def test_a_request_whose_head_does_not_come_is_waited_for_in_vain(said: bytes) -> None:
    protocol, client, clock = connected()
    protocol.data_received(said)
    clock.now = IDLE - 1
    protocol.data_received(said and b"bs")  # a little now and then does not help
    clock.now = 0
    clock.ring(IDLE)
    assert client.closed


@pytest.fixture
def unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked waits for its answer."""
    monkeypatch.setattr(Protocol, "_start_asgi_task", lambda *_: None)


HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"


def test_a_body_is_waited_for_as_long_as_it_comes(unanswered: None) -> None:
    protocol, client, clock = connected()
    protocol.data_received(HEAD)
    clock.now = 50
    protocol.data_received(b"1234")
    clock.now = 0
    clock.ring(IDLE)
    assert not client.closed
    clock.ring(50)
    assert client.closed


def test_who_has_asked_waits_as_long_as_he_likes(unanswered: None) -> None:
    protocol, client, clock = connected()
    protocol.data_received(HEAD + b"123456789")
    clock.ring(IDLE)
    assert not client.closed
    assert not clock.timers


def test_a_client_that_nobody_listens_to_is_not_late(unanswered: None) -> None:
    protocol, client, clock = connected()
    protocol.data_received(HEAD)
    protocol.flow.pause_reading()
    clock.ring(IDLE)
    assert not client.closed
    protocol.flow.resume_reading()
    clock.ring(IDLE)
    assert client.closed


def test_a_body_that_comes_after_its_answer_is_waited_for_no_longer_than_any(unanswered: None) -> None:
    protocol, client, clock = connected()
    protocol.data_received(HEAD)
    protocol.cycle.response_complete = True
    protocol.on_response_complete()
    protocol.data_received(b"123456789")
    clock.ring(IDLE)
    assert client.closed


CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begun", "endless"),
    [
        (b"GET /", b"a"),
        (b"GET /a HTTP/1.1\r\nX-A: ", b"a"),
        (b"GET /a HTTP/1.1\r\n", b"X-A: b\r\n"),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"X-A: b\r\n"),
    ],
    ids=["URL", "header", "headers", "behind a body"],
)
def test_what_a_request_has_without_an_end_is_refused(unanswered: None, begun: bytes, endless: bytes) -> None:
    protocol, client, _ = connected()
    protocol.data_received(begun)
    for _ in range(2):
        assert not client.closed
        protocol.data_received(endless * (HEAD_MAX // 2 // len(endless)))
    protocol.data_received(endless * len(begun))
    assert client.closed
    assert client.took.startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_body_is_as_long_as_it_is(unanswered: None) -> None:
    protocol, client, _ = connected()
    protocol.data_received(CHUNKED)
    for _ in range(5):
        protocol.data_received(b"%x\r\n%b\r\n" % (HEAD_MAX - 100, b"a" * (HEAD_MAX - 100)))
    assert not client.closed
    protocol.data_received(b"0\r\n\r\n" + HEAD)
    assert not client.closed
