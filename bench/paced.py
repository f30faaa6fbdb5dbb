"""Submits at a steady rate, whatever the answers take, and hears of each job's stored result as a long poll's API does:
by the message that workers send after their commit. In a process of its own."""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import uvloop

from bench.connection import Connection, connect
from bench.ear import listen
from local.supervise import TREE
from tundish import queue
from tundish.ids import from_text

#: More than are ever in flight: a machine that stops for a moment shows in the times.
CONNECTIONS = 256
#: Seconds for the last result after the last submit.
PATIENCE = 30.0


@dataclass(frozen=True)
class Order:
    port: int
    redis_url: str
    request: str  # latin-1
    rate: float
    count: int


def run(order: Order) -> list[float]:
    """Seconds from each submit call to the stored result, in the order of the submits."""
    command = [sys.executable, "-m", "bench.paced"]
    given = json.dumps(asdict(order))
    ran = subprocess.run(command, cwd=TREE, input=given, stdout=subprocess.PIPE, text=True, check=True)
    return [float(each) for each in json.loads(ran.stdout)]


class _Sender:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._request = order.request.encode("latin-1")
        self._idle: list[Connection] = []
        self._sent: dict[Connection, float] = {}
        self._submitted: dict[bytes, float] = {}
        self._done: dict[bytes, float] = {}
        self._over: asyncio.Future[None]

    async def run(self) -> list[float]:
        order = self._order
        self._over = asyncio.get_running_loop().create_future()
        self._idle = [await connect(order.port, self._answered, self._over) for _ in range(CONNECTIONS)]
        connections = list(self._idle)
        ear = await listen(order.redis_url, queue.DONE, self._heard)
        await self._send()
        await asyncio.wait([self._over], timeout=PATIENCE)
        ear.close()
        for connection in connections:
            connection.close()
        if not self._over.done():
            raise RuntimeError(f"{order.count - self._ended} results were not stored within {PATIENCE:.0f} s")
        self._over.result()
        return [self._done[id] - sent for id, sent in self._submitted.items()]

    @property
    def _ended(self) -> int:
        return len(self._submitted.keys() & self._done.keys())

    async def _send(self) -> None:
        began = time.perf_counter()
        for number in range(self._order.count):
            await asyncio.sleep(began + number / self._order.rate - time.perf_counter())
            if not self._idle:
                raise RuntimeError(f"{CONNECTIONS} submits wait for their answers: the API does not keep up")
            connection = self._idle.pop()
            self._sent[connection] = time.perf_counter()
            connection.send(self._request)

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        id = from_text("job", json.loads(body).get("id", ""))
        if status != 202 or id is None:
            raise RuntimeError(f"a submit was answered with {status}: {body!r}")
        self._submitted[id.bytes] = self._sent.pop(connection)
        self._idle.append(connection)
        self._look()

    def _heard(self, data: bytes) -> None:
        at = time.perf_counter()
        for place in range(0, len(data), 16):
            self._done[data[place : place + 16]] = at
        self._look()

    def _look(self) -> None:
        # A result may be stored before its submit is answered.
        if not self._over.done() and len(self._submitted) == self._order.count == self._ended:
            self._over.set_result(None)


def main() -> None:
    order = Order(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(_Sender(order).run()), sys.stdout)


if __name__ == "__main__":
    main()
