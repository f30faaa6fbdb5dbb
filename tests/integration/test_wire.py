"""Who does not read, over real connections."""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest
import uvicorn

import api.wire
from api.events import EventStream, Say
from tests.local import free_port, wait_until

PIECE = b"x" * 65_536


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """Says pieces for as long as somebody listens."""
    monkeypatch.setattr(api.wire, "PATIENCE", 5.0)

    async def tell(say: Say) -> None:
        while True:
            await say(PIECE)
            await asyncio.sleep(0)  # what is said to nobody waits for nothing

    config = uvicorn.Config(
        EventStream(tell), port=free_port(), http=api.wire.Protocol, ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = Thread(target=server.run)
    serving.start()
    wait_until(lambda: server.started, "the server listens")
    yield server
    server.should_exit = True
    serving.join()


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
