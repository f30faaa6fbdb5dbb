"""HTTP/1.1 on a connection: uvicorn's protocol, of which this is mended. uvicorn's own

- writes the head of an answer and its body apart: the system sends a packet for each, and wakes the client twice;
- makes a task for each request, also where the application has the answer as soon as it has read a row;
- waits for a client that does not read until TCP gives up, which is never while the client's system is there, and for
  one that does not go on with its request;
- holds heads of any size, and any number of requests that wait behind another;
- takes what comes behind a body for a part of its head;
- loses the body of a request that offers to go on in another protocol, as clients in Java do at their first;
- takes the next request for a body that its client waits to be asked for, and that nobody reads;
- answers a request of HTTP/1.1 without a Host, or with several;
- answers what is not HTTP in plain text, and before what was asked before it.
"""

import asyncio
from collections.abc import Collection
from functools import lru_cache
from operator import itemgetter
from typing import Any

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_RE, STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.http import WHOLE, new_request_id, problem_response
from tundish.errors import BadRequest

#: Bytes that wait for company; more are written at once, so that a long body is held back where its client is slow.
TOGETHER = 65536
#: Seconds in which a client that is waited for has to take some of its answer.
PATIENCE = 60.0
#: Bytes that a request may have in one piece: its head, or what comes between two pieces of its body or behind it.
HEAD_MAX = 128 * 1024

_NAME = itemgetter(0)
#: What no head holds but at the ends of its lines.
_CONTROLS = bytes({*range(32), 127} - {ord("\t")})


class Protocol(HttpToolsProtocol):
    """Over a transport that writes together what is written in one turn of the loop."""

    _look: asyncio.TimerHandle | None = None
    _waits_since: float | None = None  # for its client: for a request's head, or for more of its body
    _in_body = False
    _held = 0  # bytes that the parser was given since it gave a head or some of a body
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(_Together(transport, self.loop))  # type: ignore[arg-type]  # all of one that it uses
        self.flow = _Flow(self.transport, self.pipeline)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_no_more()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._held += len(data)
        rest: bytes | memoryview = data
        try:
            while rest:
                rest = self._read(rest)
            if self._held > HEAD_MAX:
                raise httptools.HttpParserError
            if self._in_body:
                self._wait()
        except httptools.HttpParserError:
            self._refused = True
            # Whole requests that came before are answered before, or their clients take this for the answer.
            if self.pipeline and self.cycle.more_body:
                self.pipeline.popleft()  # its body is what is broken
            elif self.cycle is None or self.cycle.more_body or self.cycle.response_complete:
                self._refuse()

    def _read(self, data: bytes | memoryview) -> bytes | memoryview:
        """Gives what is left behind the head of a request that offers another protocol (RFC 9110, 7.8). The parser
        takes that for the request's end, and a new one reads the head again without the offer. CONNECT is no offer, and
        cannot be declined."""
        try:
            self.parser.feed_data(data)
            return b""
        except httptools.HttpParserUpgrade as offer:
            rest = memoryview(data)[offer.args[0] :]
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise httptools.HttpParserError
        fields = b"".join(b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self.parser.feed_data(b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, fields))
        return rest

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait()  # for the whole head: a byte now and then gives no more time

    def on_body(self, body: bytes) -> None:
        self._held = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._held, self._in_body = 0, True
        if not self.parser.should_upgrade():
            if self.parser.get_http_version() == "1.1" and [*map(_NAME, self.headers)].count(b"host") != 1:
                raise httptools.HttpParserError  # RFC 9112, 3.2
            self.scope["extensions"] = {WHOLE: {}}
            super().on_headers_complete()
            self.cycle.__class__ = _Cycle  # nothing of it has run
            if self.scope["http_version"] == "1.0":
                self.cycle.waiting_for_100_continue = False  # which that does not know (RFC 9110, 10.1.1)
            self.headers = []  # what comes behind a body is no part of its head (RFC 9110, 6.5.1)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Not where the application has the answer soon. A connection that closes, or whose client does not read, is
        left to uvicorn."""
        go_on = super()._start_asgi_task

        def then(response: Response | None) -> bool:
            if cycle.disconnected:
                return False
            if response and cycle.keep_alive and not self.flow.write_paused:
                cycle.write(response.status_code, response.raw_headers, response.body)
                return True
            go_on(cycle, app)
            return False

        soon = getattr(app, "soon", None)
        plain = cycle.keep_alive and not cycle.access_log and not cycle.waiting_for_100_continue
        if not (soon and plain and soon(cycle.scope, then)):
            go_on(cycle, app)

    def on_message_complete(self) -> None:
        self._held, self._in_body = 0, False
        if not self.parser.should_upgrade():
            super().on_message_complete()
            if self.cycle.response_complete:  # before its body had come
                self._wait()
            else:
                self._waits_since = None

    def on_response_complete(self) -> None:
        """As uvicorn's, with one timer a connection, not one cancelled and one armed for each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        following = self.pipeline.pop() if self.pipeline else None
        self.flow.resume_reading()
        if following:
            self._start_asgi_task(*following)
        elif self._refused:
            self._refuse()
        else:
            self._wait()

    def _wait(self) -> None:
        """For the client, from now on."""
        self._waits_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._close_later(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._waits_since is None:
            return
        if self.flow.read_paused:  # it is not the client who is slow
            self._wait()
            return
        left = self._waits_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._close_later(left)
        else:
            super().timeout_keep_alive_handler()

    def _close_later(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _refuse(self) -> None:
        detail = (
            "the request is not HTTP as RFC 9112 has it, or its method is unknown; a URL is percent-encoded ASCII of"
            f" less than 64 KiB, a head has one Host and at most {HEAD_MAX >> 10} KiB"
        )
        request_id = new_request_id()
        problem = problem_response(BadRequest("invalid_http", detail), "", request_id, "Bad Request")
        problem.headers.update({"x-request-id": request_id, "connection": "close"})
        fields = [*self.server_state.default_headers, *problem.raw_headers]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, bytes(problem.body)))
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        self._look_no_more()
        super().resume_writing()

    def _look_later(self) -> None:
        self._look = self.loop.call_later(PATIENCE, self._hang_up_unless_taken, self.transport.get_write_buffer_size())

    def _look_no_more(self) -> None:
        if self._look:
            self._look.cancel()

    def _hang_up_unless_taken(self, waiting: int) -> None:
        """Of so many bytes that waited."""
        if self.transport.get_write_buffer_size() < waiting:
            self._look_later()
        else:
            self.transport.abort()


class _Flow(FlowControl):
    """Reads on where nothing that was read waits for its turn in the pipeline: who pipelines fills no memory. It does
    not know its protocol, which goes with its connection and waits for no collector."""

    def __init__(self, transport: asyncio.Transport, pipeline: Collection[object]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class _Cycle(RequestResponseCycle):
    """Takes whole answers, too."""

    transport: "_Together"  # type: ignore[assignment]  # all of one that is used

    async def send(self, message: Any) -> None:
        if self.waiting_for_100_continue and self.more_body and not self.body:
            self.keep_alive = False  # nobody asked for the body: what comes next may be it, or another request
        if message["type"] != WHOLE:
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        status, headers, body = message["status"], message["headers"], message["body"]
        plain = self.keep_alive and not self.access_log and self.scope["method"] != "HEAD" and not self.response_started
        if plain and _plain(tuple(map(_NAME, headers))) and (b"content-length", b"%d" % len(body)) in headers:
            self.write(status, headers, body)
        else:
            await super().send({"type": "http.response.start", "status": status, "headers": headers})
            await super().send({"type": "http.response.body", "body": body})

    def write(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Of a connection that goes on, with headers that stand for themselves: as uvicorn does it, at once."""
        self.response_started = True
        lines = [*map(b": ".join, self.default_headers), *map(b": ".join, headers)]
        head = b"\r\n".join([*lines, b"", b""])
        if len(head.translate(None, _CONTROLS)) != len(head) - 2 * len(lines) - 2:
            raise RuntimeError("Invalid HTTP header value.")
        self.waiting_for_100_continue = False
        self.transport.write_now(STATUS_LINE[status], head, body)
        self.response_complete = True
        self.message_event.set()
        self.on_response()


@lru_cache(maxsize=256)
def _plain(names: tuple[bytes, ...]) -> bool:
    """Whether headers of these names are written as they are, and only say how long the body is."""
    sound = all(name == name.lower() and not HEADER_RE.search(name) for name in names)
    return sound and names.count(b"content-length") == 1 and not {b"connection", b"transfer-encoding"} & {*names}


class _Together:
    """Of a transport, what is written and closed; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)
        self._size += len(data)
        if self._size > TOGETHER:
            self._flush()

    def write_now(self, *pieces: bytes) -> None:
        """Behind what waits."""
        self._waiting += pieces
        self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._waiting and not self._transport.is_closing():
            self._transport.write(b"".join(self._waiting))
        self._waiting.clear()
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
