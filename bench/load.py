"""A closed loop of many connections, each of which sends its next request when the last one is answered; in a process
of its own, which says how much CPU it took."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle

import uvloop

from bench.connection import Connection, connect
from bench.measure import quantile
from local.supervise import TREE


@dataclass(frozen=True)
class Order:
    """What to send: the requests in turn, over and over, for so many seconds after the warm-up, or so often in all."""

    port: int
    requests: list[str]  # latin-1
    connections: int = 64
    warm_up: float = 1.0
    seconds: float = 5.0
    count: int | None = None
    keep: bool = False  # the bodies of the answers


@dataclass
class Load:
    """What came of it: answers a second, times in milliseconds, statuses, and the client's share of one core."""

    rate: float
    p50: float
    p99: float
    cpu: float
    statuses: dict[str, int]
    bodies: list[str] = field(default_factory=list)


def run(order: Order, wanted: int) -> Load:
    """Send it all, by a process of its own. Raises RuntimeError where an answer's status is not `wanted`."""
    command = [sys.executable, "-m", "bench.load"]
    ran = subprocess.run(
        command, cwd=TREE, input=json.dumps(asdict(order)), stdout=subprocess.PIPE, text=True, check=True
    )
    load = Load(**json.loads(ran.stdout))
    if set(load.statuses) != {str(wanted)}:
        raise RuntimeError(f"the answers' statuses were {load.statuses}, and not {wanted} alone")
    return load


class _Loop:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._requests = cycle([each.encode("latin-1") for each in order.requests])
        self._left = order.count
        self._sent: dict[Connection, float] = {}
        self._took: list[float] = []
        self._statuses: Counter[int] = Counter()
        self._bodies: list[bytes] = []
        self._over: asyncio.Future[None]

    async def run(self) -> Load:
        order = self._order
        self._over = asyncio.get_running_loop().create_future()
        connections = [await connect(order.port, self._answered, self._over) for _ in range(order.connections)]
        began, cpu = time.perf_counter(), time.process_time()
        for connection in connections:
            self._next(connection)
        if order.count is None:
            began, cpu = await self._timed(order)
        else:
            await self._over
        seconds = time.perf_counter() - began
        used = time.process_time() - cpu
        for connection in connections:
            connection.close()
        return self._load(seconds, used)

    async def _timed(self, order: Order) -> tuple[float, float]:
        await asyncio.wait([self._over], timeout=order.warm_up)
        self._took.clear()
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.wait([self._over], timeout=order.seconds)
        if self._over.done():
            self._over.result()  # a connection was lost
        return began, cpu

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        self._took.append(time.perf_counter() - self._sent.pop(connection))
        self._statuses[status] += 1
        if self._order.keep:
            self._bodies.append(body)
        self._next(connection)

    def _next(self, connection: Connection) -> None:
        if self._left is not None:
            if not self._left:
                if not self._sent and not self._over.done():
                    self._over.set_result(None)
                return
            self._left -= 1
        self._sent[connection] = time.perf_counter()
        connection.send(next(self._requests))

    def _load(self, seconds: float, used: float) -> Load:
        return Load(
            rate=len(self._took) / seconds,
            p50=1000 * quantile(self._took, 0.5),
            p99=1000 * quantile(self._took, 0.99),
            cpu=used / seconds,
            statuses={str(status): count for status, count in self._statuses.items()},
            bodies=[body.decode("latin-1") for body in self._bodies],
        )


def requests(raw: Sequence[bytes]) -> list[str]:
    """As an Order carries them."""
    return [each.decode("latin-1") for each in raw]


def ids(load: Load) -> list[str]:
    """Those of the jobs in the answers that were kept."""
    return [json.loads(body.encode("latin-1"))["id"] for body in load.bodies]


def main() -> None:
    order = Order(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(asdict(runner.run(_Loop(order).run())), sys.stdout)


if __name__ == "__main__":
    main()
