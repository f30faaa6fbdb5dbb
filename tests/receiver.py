"""A real receiver of webhooks that answers as a test says, and keeps what it got."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import NamedTuple


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    status: int = 204
    headers: Mapping[str, str] = {}
    body: bytes = b""


@dataclass
class Receiver:
    """`answers[path]` are given one after the other, the last one for good; else 204. Until `opened`, what goes
    to /hang waits and the answer of /drip goes on; at /flaky, each id fails at first."""

    port: int = 0
    received: "Queue[Received]" = field(default_factory=Queue)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    came: threading.Event = field(default_factory=threading.Event)  # set by whatever comes
    opened: threading.Event = field(default_factory=threading.Event)
    _failed: set[str] = field(default_factory=set)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, timeout: float = 20) -> Received:
        return self.received.get(timeout=timeout)

    def answer(self, path: str, id: str) -> Answer:
        if path == "/flaky" and id not in self._failed:
            self._failed.add(id)
            return Answer(500)
        given = self.answers.get(path, [Answer()])
        return given.pop(0) if len(given) > 1 else given[0]


@contextmanager
def listening() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.put(Received(self.path, headers, body))
            receiver.came.set()
            if self.path.startswith("/hang"):
                receiver.opened.wait()
            if self.path.startswith("/drip"):
                self._drip()
                return
            answer = receiver.answer(self.path, headers["webhook-id"])
            self.send_response(answer.status)
            for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def _drip(self) -> None:
            self.close_connection = True
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            with suppress(OSError):  # the courier gives up
                while not receiver.opened.wait(0.2):
                    self.wfile.write(b".")

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 512

    server = Server(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.opened.set()
        server.shutdown()
        thread.join()
        server.server_close()
