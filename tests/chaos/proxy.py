"""A TCP proxy that a test can cut: by resets, by silence, after the request and before the answer, within the answer,
or by answers of HTTP that say 503."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Mode = Literal["pass", "reset", "blackhole", "no answer", "half an answer", "503"]
_503 = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LINGER_NONE = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a port of loopback and carries bytes to what `connect` gives."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.mode: Mode = "pass"
        self._open: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut(self, mode: Mode) -> None:
        """From now on: refuse and reset, swallow all bytes in silence, reset within each answer, or answer 503. What is
        open stays dead after `heal`."""
        self.mode = mode
        if mode in ("reset", "503"):
            for each in list(self._open):
                _reset(each)

    def heal(self) -> None:
        """New connections are carried again."""
        self.mode = "pass"

    def close(self) -> None:
        with suppress(OSError):  # wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for each in list(self._open):
            _reset(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.mode == "reset":
                    _reset(client)
                    continue
                self._open.add(client)
                threading.Thread(target=self._guarded, args=(client,), daemon=True).start()

    def _guarded(self, client: socket.socket) -> None:
        with suppress(OSError):
            self._carry(client)

    def _carry(self, client: socket.socket) -> None:
        with client:
            if self.mode == "blackhole":
                while client.recv(65536):  # until the client gives up
                    pass
                return
            if self.mode == "503":
                client.recv(65536)
                client.sendall(_503)
                return
            try:
                server = self._connect()
            except OSError:
                _reset(client)
                return
            with server:
                self._open.add(server)
                answers = threading.Thread(target=self._pump, args=(server, client, True), daemon=True)
                answers.start()
                self._pump(client, server, False)
                with suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                answers.join()
                self._open -= {client, server}

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        dead = False
        with suppress(OSError):
            while data := source.recv(65536):
                dead = dead or self.mode == "blackhole"
                if answers and self.mode == "half an answer":
                    sink.sendall(data[: len(data) // 2])
                if answers and self.mode in ("no answer", "half an answer"):
                    _reset(sink)
                    return
                if not dead:
                    sink.sendall(data)
        if not dead:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """Close with an RST."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        connection.shutdown(socket.SHUT_RD)
    with suppress(OSError):
        connection.close()
