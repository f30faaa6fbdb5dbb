"""A receiver of webhooks that costs little: it answers by the URL's last word, and notes when each body came.

`ok` is answered at once, `fail` with a 500; `hang` is never answered, `drip` a byte a second.
"""

import asyncio
import json
import threading
import time
from typing import cast

import uvloop

_ANSWERS = {
    b"ok": b"HTTP/1.1 204 No Content\r\n\r\n",
    b"fail": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    b"drip": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
}


class Receiver:
    """Listens on a port of loopback, in a thread. `seconds` holds, for each delivery to `ok`, the time from the moment
    that its body says to its arrival."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        ready = threading.Event()
        threading.Thread(target=lambda: uvloop.run(self._serve(ready)), daemon=True).start()
        ready.wait()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but no subclass

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, rest = self._read.partition(b"\r\n\r\n")
        if not end:
            return
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < size:
            return
        self._read = rest[size:]
        word = head.partition(b"\r\n")[0].split(b" ")[1].rpartition(b"/")[2]
        if word == b"ok":
            self._receiver.seconds.append(time.time() - json.loads(rest[:size])["at"])
        if word in _ANSWERS:
            self._transport.write(_ANSWERS[word])
        if word == b"drip":
            self._drip()

    def _drip(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b".")
            asyncio.get_running_loop().call_later(1, self._drip)
