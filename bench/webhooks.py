"""webhooks: what one courier delivers a second to receivers that answer at once, and how long a delivery takes to 97
receivers beside which three fail: one hangs, one drips, one always answers 500."""

import json
import time
from collections.abc import Sequence

import psutil

from bench.receiver import Receiver
from bench.report import Row, compare, write
from bench.system import Bench, started
from tundish import queue, store
from tundish.ids import new_uuid

DELIVERIES = 20_000
ENDPOINTS = 100
#: Rounds, each of one delivery to every endpoint, and the seconds between two.
ROUNDS, PAUSE = 100, 0.2
RUNS = 3
#: About what a small job's body has.
PAD = "x" * 900


def rates() -> tuple[float, float]:
    """Deliveries a second, from the commit that wrote them to the last that was settled; the courier's microseconds of
    CPU for each."""
    receiver = Receiver()
    with started("bench.models:Noop", TUNDISH_OUTBOUND_ALLOW="127.0.0.0/8") as bench:
        urls = [receiver.url(f"{number}/ok") for number in range(ENDPOINTS)]
        endpoints = _register(bench, urls)
        courier = _courier()
        _tell(bench, endpoints)
        _wait(bench)
        cpu, began = _cpu(courier), time.time()
        _tell(bench, endpoints * (DELIVERIES // ENDPOINTS))
        began = time.time()
        _wait(bench)
        took = time.time() - began
        return DELIVERIES / took, (_cpu(courier) - cpu) / DELIVERIES * 1e6


def slowest(*bad: str) -> float:
    """Milliseconds within which 99 of 100 deliveries arrive at receivers that answer at once, beside `bad` ones."""
    receiver = Receiver()
    with started("bench.models:Noop", TUNDISH_OUTBOUND_ALLOW="127.0.0.0/8") as bench:
        words = [*bad, *["ok"] * (ENDPOINTS - len(bad))]
        endpoints = _register(bench, [receiver.url(f"{number}/{word}") for number, word in enumerate(words)])
        _tell(bench, endpoints)
        time.sleep(1)
        receiver.seconds.clear()
        for _ in range(ROUNDS):
            _tell(bench, endpoints)
            time.sleep(PAUSE)
        arrived = sorted(receiver.seconds)
        return arrived[int(len(arrived) * 0.99)] * 1000


def main() -> None:
    measured: list[float] = []

    def rate() -> float:
        deliveries, cpu = rates()
        measured.append(cpu)
        return deliveries

    rows = [compare("deliveries/s from one courier", "deliveries/s", rate, {}, runs=RUNS, reach={}, moonshot={})]
    cpu = sorted(measured)[len(measured) // 2]
    spread = (max(measured) - min(measured)) / cpu
    rows.append(Row("CPU of one delivery in the courier", "us", cpu, {}, {}, RUNS, spread, "lower", {}, {}, ""))
    peer = "100 that answer"
    rows.append(
        compare(
            "97 that answer beside one that hangs, one that drips, one that fails: p99",
            "ms",
            lambda: slowest("hang", "drip", "fail"),
            {peer: slowest},
            runs=RUNS,
            reach={peer: 2},
            moonshot={peer: 1.1},
            better="lower",
        )
    )
    write("webhooks", rows)


def _register(bench: Bench, urls: Sequence[str]) -> list[store.Endpoint]:
    endpoints = [store.Endpoint(new_uuid(), store.DEFAULT_TENANT, url, ["job.succeeded"]) for url in urls]
    engine = store.engine(bench.system.supervisor.environment["TUNDISH_DATABASE_URL"])
    with engine.begin() as connection:
        for endpoint in endpoints:
            store.add_endpoint(connection, endpoint, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", most=ENDPOINTS)
    engine.dispose()
    return endpoints


def _tell(bench: Bench, endpoints: Sequence[store.Endpoint]) -> None:
    """As a record does: one transaction, then the bell."""
    engine = store.engine(bench.system.supervisor.environment["TUNDISH_DATABASE_URL"])
    body = json.dumps({"at": time.time(), "type": "job.succeeded", "data": PAD}).encode()
    with engine.begin() as connection:
        store.deliver(
            connection,
            [
                store.Delivery(new_uuid(), each.tenant, each.id, "job.succeeded", each.url, body, endpoint=each.id)
                for each in endpoints
            ],
        )
    engine.dispose()
    bench.redis.publish(queue.DONE, b"")


def _wait(bench: Bench) -> None:
    """Until nothing is pending."""
    while True:
        row = bench.database.execute("SELECT count(*) FROM deliveries WHERE status = 'pending'").fetchone()
        if row == (0,):
            return
        time.sleep(0.05)


def _courier() -> psutil.Process:
    [courier] = [each for each in psutil.Process().children() if "workers.courier" in each.cmdline()]
    return courier


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
