"""HTTP/1.1 on a connection: uvicorn's protocol, but for four things. It writes the head of an answer and its body
apart, and the system sends a packet for each and wakes the client twice: that was a tenth of a status answer. It waits
for a client that does not read until TCP gives up, which is never while the client's system is there. Of a request that
offers to go on in another protocol, as clients in Java do at their first, it loses the body. And what is not HTTP it
answers in plain text."""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.http import new_request_id, problem_response
from tundish.errors import BadRequest

#: Bytes that wait for company; more are written at once, so that a long body is held back where its client is slow.
TOGETHER = 65536
#: Seconds in which a client that is waited for has to take some of its answer.
PATIENCE = 60.0


class Protocol(HttpToolsProtocol):
    """Over a transport that writes together what is written in one turn of the loop."""

    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(_Together(transport, self.loop))  # type: ignore[arg-type]  # all of one that it uses

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        rest: bytes | memoryview = data
        try:
            while rest:
                rest = self._read(rest)
        except httptools.HttpParserError:
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

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _refuse(self) -> None:
        detail = "the request is not HTTP as RFC 9112 has it; a URL is percent-encoded ASCII of less than 64 KiB"
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
