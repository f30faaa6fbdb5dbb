"""An origin of inputs: a real server whose every answer a test gives, byte for byte."""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: Where it is, to those who ask it.
ALLOWED = (ipaddress.ip_network("127.0.0.0/8"),)


@contextmanager
def serving(answer: Callable[[socket.socket, str], None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that calls `answer` with each connection and the head of its request, in a thread; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(peer: socket.socket) -> None:
            with tls.wrap_socket(peer, server_side=True) if tls else peer as peer:
                head = b""
                while b"\r\n\r\n" not in head and (piece := peer.recv(65536)):
                    head += piece
                with suppress(OSError):  # the client may be gone
                    answer(peer, head.decode("latin-1"))

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def head(length: int | None, **headers: str) -> bytes:
    given = {} if length is None else {"content-length": str(length)}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in (given | headers).items()]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()
