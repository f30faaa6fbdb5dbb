"""streams: 2,000 open streams on one API process, a job each, all in one running batch: from `emit` in the model to the
client, and what that takes of the API."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
import uvloop

from bench.measure import measure, quantile, row
from bench.plan import Plan
from bench.report import write
from bench.system import LOOK, Bench, started
from local.supervise import TREE
from tundish.ids import to_text

#: Pieces a second: of all streams together.
RATES = (200, 1_000)
#: Seconds of the first batch, behind which the others gather to one.
GATHER = 3.0


class Told(NamedTuple):
    """Milliseconds that each piece took, and the API's share of a core and its resident MiB meanwhile."""

    took: list[float]
    cpu: float
    memory: float


def main(plan: Plan) -> None:
    count, seconds = plan.of(2_000, 100), plan.of(15.0, 2.0)
    rows = []
    with started("bench.models:Speaker") as bench:
        for rate in RATES:
            case = f"{count:,} streams, {rate:,} pieces/s"
            measured = measure(case, partial(tell, bench, count, rate, seconds), {}, plan.runs, _shown)
            rows += [
                row(f"{case}, p50", "ms", measured.of(lambda told: quantile(told.took, 0.5)), better="lower"),
                row(f"{case}, p99", "ms", measured.of(lambda told: quantile(told.took, 0.99)), better="lower"),
                row(f"{case}, the API's CPU", "% of a core", measured.of(lambda told: told.cpu), better="lower"),
                row(f"{case}, the API's memory", "MiB", measured.of(lambda told: told.memory), better="lower"),
            ]
    write("streams", plan, rows)


def tell(bench: Bench, count: int, rate: int, seconds: float) -> Told:
    [api] = [each for each in psutil.Process().children() if each.cmdline()[-1] == "api"]
    bench.empty()
    worker = bench.start_worker()
    with tempfile.TemporaryDirectory() as folder:
        go = Path(folder) / "go"
        bench.submit("speaker", [{"go": "", "seconds": GATHER, "rate": 1}])
        _wait_for_running(bench, 1)
        bench.submit("speaker", [{"go": str(go), "seconds": seconds, "rate": rate}] * count)
        _wait_for_running(bench, count)
        command = [sys.executable, "-m", "bench.streams", str(bench.system.settings.port), bench.system.api.key]
        with subprocess.Popen(command, cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdin
            assert listener.stdout
            json.dump([to_text("job", id) for id in bench.ids[1:]], listener.stdin)
            listener.stdin.close()
            if listener.stdout.readline() != "open\n":
                raise RuntimeError("the streams could not be opened")
            began, worked = time.monotonic(), sum(api.cpu_times()[:2])
            go.touch()
            took = json.load(listener.stdout)
        cpu = (sum(api.cpu_times()[:2]) - worked) / (time.monotonic() - began)
        memory = api.memory_info().rss / 2**20
    bench.stop_worker(worker)
    if len(took) < 0.99 * seconds * rate:
        raise RuntimeError(f"{len(took)} of {seconds * rate:.0f} pieces arrived")
    return Told(took, 100 * cpu, memory)


def _wait_for_running(bench: Bench, count: int) -> None:
    started = "SELECT sum(cardinality(jobs)) FROM claims WHERE started_at IS NOT NULL"
    while (bench.database.execute(started).fetchone() or [0])[0] != count:
        time.sleep(LOOK)


def _shown(told: Told) -> str:
    p50, p99 = quantile(told.took, 0.5), quantile(told.took, 0.99)
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {told.cpu:.0f} % of a core, {told.memory:.0f} MiB"


async def listen(port: int, key: str, ids: list[str]) -> list[float]:
    """Open a stream a job, say `open` once each has its first event; then the milliseconds that each piece took."""
    took: list[float] = []
    opened = asyncio.Semaphore(0)

    async def one(id: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        headers = f"Host: bench\r\nAuthorization: Bearer {key}\r\n"
        writer.write(f"GET /v1/jobs/{id}/events HTTP/1.1\r\n{headers}\r\n".encode())
        head = await reader.readuntil(b"event: status\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(head.decode())
        opened.release()
        async for line in reader:
            if line.startswith(b'data: {"piece":'):
                took.append(1000 * (time.time() - json.loads(line[6:])["piece"]))
            elif line == b"id: end\n":
                break
        writer.close()

    streams = [asyncio.create_task(one(id)) for id in ids]
    for _ in streams:
        await opened.acquire()
    print("open", flush=True)
    await asyncio.gather(*streams)
    return took


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(listen(int(sys.argv[1]), sys.argv[2], json.load(sys.stdin))), sys.stdout)
