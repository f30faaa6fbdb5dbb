"""Many callers who each wait for one job, by a long poll or by asking again and again; in a process of its own. It says
`open` once all have asked, and at the end when each one heard of the end."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import uvloop

from bench.connection import Connection, connect, request
from local.supervise import TREE

#: What a job that has ended says of itself.
ENDED = b'"status":"succeeded"'
#: Seconds for all to have heard.
PATIENCE = 120.0
#: Seconds between the last request and `open`: the API takes them in.
SETTLE = 1.0


@dataclass(frozen=True)
class Order:
    """`every` is the seconds between two requests of a caller; None is a long poll."""

    port: int
    key: str
    ids: list[str]
    every: float | None = None


@contextmanager
def waiting(order: Order) -> Iterator["subprocess.Popen[str]"]:
    """All wait once the block begins; `heard` gives what came of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.polls"], cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    try:
        json.dump(asdict(order), process.stdin)
        process.stdin.close()
        if process.stdout.readline() != "open\n":
            raise RuntimeError("the callers could not connect")
        yield process
    finally:
        process.kill()
        process.wait()


def heard(process: "subprocess.Popen[str]") -> dict[str, float]:
    """Seconds since 1970 when each caller heard of the end of his job, by its id."""
    assert process.stdout
    return dict(json.load(process.stdout))


class _Callers:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._ids: dict[Connection, str] = {}
        self._heard: dict[str, float] = {}
        self._over: asyncio.Future[None]

    async def run(self) -> dict[str, float]:
        order = self._order
        self._over = asyncio.get_running_loop().create_future()
        chance = random.Random(5)
        for id in order.ids:
            connection = await connect(order.port, self._answered, self._over)
            self._ids[connection] = id
            # Who asks every second does so at his own moment of it.
            self._ask(connection, chance.uniform(0, order.every) if order.every else 0)
        await asyncio.sleep(SETTLE)
        print("open", flush=True)
        await asyncio.wait_for(self._over, PATIENCE)
        for connection in self._ids:
            connection.close()
        return self._heard

    def _ask(self, connection: Connection, after: float) -> None:
        wait = "" if self._order.every else "?wait=60"
        raw = request("GET", f"/v1/jobs/{self._ids[connection]}{wait}", self._order.key)
        asyncio.get_running_loop().call_later(after, connection.send, raw)

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        now = time.time()
        if status != 200:
            raise RuntimeError(f"a caller was answered with {status}: {body!r}")
        if ENDED not in body:
            self._ask(connection, self._order.every or 0)
            return
        self._heard[self._ids[connection]] = now
        if len(self._heard) == len(self._order.ids) and not self._over.done():
            self._over.set_result(None)


def main() -> None:
    order = Order(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(_Callers(order).run()), sys.stdout)


if __name__ == "__main__":
    main()
