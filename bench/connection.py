"""One kept-alive HTTP connection, as cheap as Python has it: request bytes made beforehand, answers parsed no further
than their status and length. The client of a bench must not be what is measured."""

import asyncio
from collections.abc import Callable
from typing import cast

Answered = Callable[["Connection", int, bytes], None]


class Connection(asyncio.Protocol):
    """`answered` gets each answer's status and body. Where the server hangs up, `lost` gets why."""

    def __init__(self, answered: Answered, lost: "asyncio.Future[None]") -> None:
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another ancestor, and the same calls

    def send(self, request: bytes) -> None:
        assert self._transport
        self._transport.write(request)

    def close(self) -> None:
        if self._transport:
            self._transport.abort()
            self._transport = None

    def data_received(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        end = held.find(b"\r\n\r\n")
        if end < 0:
            self._held = held
            return
        head = held[:end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            raise RuntimeError(f"an answer without a length: {head!r}")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(held) < end + 4 + length:
            self._held = held
            return
        self._held = b""
        self._answered(self, int(head[9:12]), held[end + 4 :])

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport and not self._lost.done():
            self._lost.set_exception(error or ConnectionResetError("the server hung up"))


async def connect(port: int, answered: Answered, lost: "asyncio.Future[None]") -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(answered, lost), "127.0.0.1", port)
    return connection


def request(method: str, path: str, key: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    """The bytes of a request of HTTP/1.1."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {key}"]
    if body:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
