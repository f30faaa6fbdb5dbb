"""Answers over real connections: whole ones, and who does not read."""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

import api.wire
from api.events import EventStream, Say
from api.http import WHOLE, answer, json_response
from local.http import free_port
from tests.local import wait_until

PIECE = b"x" * 65_536


class Unlogged(api.wire.Protocol):
    """As in production; pytest's handlers would have it log each request. `longest`: requests that waited at once."""

    longest = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        Unlogged.longest = max(Unlogged.longest, len(self.pipeline))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.access_log = False


@contextmanager
def served(app: ASGIApp) -> Iterator[uvicorn.Server]:
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=free_port(),
            http=Unlogged,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
        )
    )
    serving = Thread(target=server.run)
    serving.start()
    wait_until(lambda: server.started, "the server listens")
    try:
        yield server
    finally:
        server.should_exit = True
        serving.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """Says pieces for as long as somebody listens."""
    monkeypatch.setattr(api.wire, "PATIENCE", 5.0)

    async def tell(say: Say) -> None:
        while True:
            await say(PIECE)
            await asyncio.sleep(0)  # what is said to nobody waits for nothing

    with served(EventStream(tell)) as server:
        yield server


#: Paths whose answers began, and those whose callers hung up before.
asked: list[str] = []
left: list[str] = []


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path, each path in its own way."""
    path = scope["path"]
    asked.append(path)
    response = json_response(path.encode())
    if path == "/slow":
        for _ in range(100):
            await asyncio.sleep(0)
    elif path == "/left":
        while (await receive())["type"] != "http.disconnect":
            pass
        left.append(path)
    elif path == "/none":
        response = Response(status_code=204)
    elif path == "/large":
        response = json_response(PIECE * 400)
    elif path == "/body":
        response = json_response(await Request(scope, receive).body())
    elif path == "/headers":
        await Request(scope, receive).body()
        response = json_response(b" ".join(name for name, _ in scope["headers"]))
    elif path in ("/value", "/name"):
        response.raw_headers.append((b"x-a", b"b\r\nx-c: d") if path == "/value" else (b"x a", b"b"))
    elif path == "/length":
        response.raw_headers[1] = (b"content-length", b"1")
    await answer(response, scope, receive, send)


@pytest.fixture
def port() -> Iterator[int]:
    asked.clear()
    left.clear()
    with served(whole) as server:
        yield server.config.port


def heard(port: int, said: bytes) -> bytes:
    """All that is answered until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(said)
        return b"".join(iter(lambda: client.recv(1 << 20), b""))


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *headers, "", ""]).encode()


def ok(body: str, *more: str, shown: bool = True) -> bytes:
    head = ["HTTP/1.1 200 OK", "content-type: application/json", f"content-length: {len(body)}", *more, "", ""]
    return ("\r\n".join(head) + (body if shown else "")).encode()


CLOSE = "connection: close"


def test_pipelined_requests_are_answered_in_their_order(port: int) -> None:
    said = get("/slow") + get("/none") + get("/b") + get("/c", CLOSE)
    none = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert heard(port, said) == ok("/slow") + none + ok("/b") + ok("/c", CLOSE)
    assert asked == ["/slow", "/none", "/b", "/c"]


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (get("/a", CLOSE), ok("/a", CLOSE)),
        (get("/a", version="1.0"), ok("/a", CLOSE)),
        (get("/a", CLOSE, method="HEAD"), ok("/a", CLOSE, shown=False)),
        (get("/a", method="HEAD") + get("/b", CLOSE), ok("/a", shown=False) + ok("/b", CLOSE)),
        (get("/none", CLOSE), f"HTTP/1.1 204 No Content\r\n{CLOSE}\r\n\r\n".encode()),
        (
            get("/body", "Expect: 100-continue", "Content-Length: 2", method="POST") + b"ab" + get("/c", CLOSE),
            b"HTTP/1.1 100 Continue\r\n\r\n" + ok("ab") + ok("/c", CLOSE),
        ),
        (
            get("/body", "Expect: 100-continue", "Content-Length: 2", method="POST", version="1.0") + b"ab",
            ok("ab", CLOSE),
        ),
        (
            get("/a", "Expect: 100-continue", "Content-Length: 2", method="POST") + b"ab" + get("/c", CLOSE),
            ok("/a") + ok("/c", CLOSE),
        ),
    ],
    ids=["close", "1.0", "head", "head and on", "204", "expected", "expected by 1.0", "not asked for"],
)
def test_a_whole_answer_reads_as_any(port: int, said: bytes, answered: bytes) -> None:
    assert heard(port, said) == answered


def test_a_connection_whose_body_nobody_asks_for_is_closed(port: int) -> None:
    """Its client may send it or not: what comes next could be either."""
    said = get("/a", "Expect: 100-continue", "Content-Length: 2", method="POST")
    assert heard(port, said) == ok("/a", CLOSE)


@pytest.mark.parametrize(
    "broken",
    [
        b"\0\r\n\r\n",
        b"GET /b HTTP/1.1\r\n\r\n",
        get("/b", "Host: y"),
        get("/body", "Transfer-Encoding: chunked", method="POST") + b"ZZZ\r\n",
    ],
    ids=["head", "no host", "two hosts", "body"],
)
def test_what_is_not_http_is_refused_in_its_turn(port: int, soon: int, broken: bytes) -> None:
    for each, paths in ((port, ("/slow", "/b")), (soon, ("/a", "/later"))):
        answers = heard(each, b"".join(map(get, paths)) + broken)
        before = b"".join(map(ok, paths))
        assert answers.startswith(before + b"HTTP/1.1 400 Bad Request\r\n")
        assert answers.count(b"HTTP/1.1 ") == 3


def test_what_comes_behind_a_body_is_no_part_of_its_head(port: int) -> None:
    said = get("/headers", "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n0\r\nX-A: b\r\n\r\n"
    assert heard(port, said + get("/b", CLOSE)) == ok("host transfer-encoding") + ok("/b", CLOSE)


def test_of_pipelined_requests_no_more_wait_than_one_read_brings(port: int) -> None:
    Unlogged.longest, request, many = 0, get("/a"), 40_000
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, ThreadPoolExecutor() as pool:
        sending = pool.submit(client.sendall, request * many + get("/b", CLOSE))
        answers = b"".join(iter(lambda: client.recv(1 << 20), b""))
        sending.result()
    assert answers == ok("/a") * many + ok("/b", CLOSE)
    assert 0 < Unlogged.longest <= (256 << 10) // len(request) + 1


@pytest.mark.parametrize("path", ["/value", "/name"])
def test_a_header_that_breaks_its_line_is_not_sent(port: int, path: str) -> None:
    assert heard(port, get(path)) == b""
    assert heard(port, get("/a", CLOSE)) == ok("/a", CLOSE)


def test_a_body_that_is_not_as_long_as_its_header_says_is_not_sent(port: int) -> None:
    assert heard(port, get("/length")).endswith(b"content-length: 1\r\n\r\n")


def test_who_hangs_up_before_its_answer_harms_nobody(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(get("/left"))
        wait_until(lambda: asked, "it is asked")
    wait_until(lambda: left, "it is noticed")
    assert heard(port, get("/a", CLOSE)) == ok("/a", CLOSE)


class Soon:
    """Has the answer to some paths at the next turn of its loop, and is called for all others."""

    def soon(self, scope: Scope, then: Callable[[Response | None], None]) -> bool:
        path = scope["path"]
        asked.append(f"soon {path}")
        if path == "/later":
            return False
        response = json_response(PIECE * 400 if path == "/large" else path.encode())
        asyncio.get_running_loop().call_soon(then, None if path == "/after" else response)
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await whole(scope, receive, send)


@pytest.fixture
def soon() -> Iterator[int]:
    asked.clear()
    with served(Soon()) as server:
        yield server.config.port


def test_what_is_there_soon_is_answered_in_its_turn(soon: int) -> None:
    said = get("/a") + get("/later") + get("/b") + get("/after") + get("/c", CLOSE)
    assert heard(soon, said) == ok("/a") + ok("/later") + ok("/b") + ok("/after") + ok("/c", CLOSE)
    called = [each for each in asked if not each.startswith("soon")]
    assert called == ["/later", "/after", "/c"]  # a connection that closes is closed by uvicorn


@pytest.mark.parametrize("said", [get("/a", version="1.0"), get("/a", CLOSE)])
def test_what_is_there_soon_closes_the_connection_that_asks_for_it(soon: int, said: bytes) -> None:
    assert heard(soon, said) == ok("/a", CLOSE)


def test_who_hangs_up_before_what_is_there_soon_harms_nobody(soon: int) -> None:
    with socket.create_connection(("127.0.0.1", soon)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(get("/a") * 50)
    assert heard(soon, get("/a", CLOSE)) == ok("/a", CLOSE)


def test_who_does_not_read_what_is_there_soon_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.wire, "PATIENCE", 1.0)
    asked.clear()
    with served(Soon()) as server, socket.create_connection(("127.0.0.1", server.config.port)) as client:
        client.sendall(get("/large") * 4)
        connections = server.server_state.connections
        wait_until(lambda: "/large" in asked, "one waits in a task")
        wait_until(lambda: not connections, "it is hung up on")
        assert len(asked) == 3  # the first was written, the second waited


def test_who_does_not_read_a_whole_answer_is_held_back_and_hung_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api.wire, "PATIENCE", 1.0)
    asked.clear()
    with served(whole) as server, socket.create_connection(("127.0.0.1", server.config.port)) as client:
        client.sendall(get("/large") * 3)
        wait_until(lambda: len(asked) == 2, "the second is asked")
        connections = server.server_state.connections
        [connection] = connections
        assert isinstance(connection, api.wire.Protocol)
        assert connection.flow.write_paused
        wait_until(lambda: not connections, "it is hung up on")
        assert len(asked) == 2


def test_another_server_is_answered_as_it_asks_for() -> None:
    said: list[str] = []

    async def send(message: object) -> None:
        said.append(message["type"])  # type: ignore[index]

    async def receive() -> dict[str, object]:
        raise AssertionError

    scope: Scope = {"type": "http", "method": "GET", "path": "/a"}
    asyncio.run(whole(scope, receive, send))
    asyncio.run(whole({**scope, "extensions": {WHOLE: {}}}, receive, send))
    assert said == ["http.response.start", "http.response.body", WHOLE]


def test_who_does_not_read_is_hung_up_on_and_who_does_goes_on(server: uvicorn.Server) -> None:
    port, connections, over = server.config.port, server.server_state.connections, Event()
    stuck, reader = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))

    def read_on() -> bool:
        """Whether there is more, until it is over."""
        while more := bool(reader.recv(1 << 20)):
            if over.is_set():
                break
        return more

    with ThreadPoolExecutor() as pool, stuck, reader:
        for each in (stuck, reader):
            each.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        reading = pool.submit(read_on)
        wait_until(lambda: len(connections) == 2, "both are connected")
        try:
            wait_until(lambda: len(connections) == 1, "one is hung up on")
        finally:
            over.set()
        assert reading.result()
