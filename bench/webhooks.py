"""webhooks: what one courier delivers a second to receivers that answer at once, and how long a delivery takes to 97
receivers beside which three fail: one hangs, one drips, one always answers 500."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.measure import OURS, measure, quantile, row
from bench.plan import Plan
from bench.receiver import Receiver
from bench.report import write
from bench.system import Bench, started
from tundish import queue, store
from tundish.ids import new_uuid

ENDPOINTS = 100
#: Seconds between two rounds, each of one delivery to every endpoint.
PAUSE = 0.2
#: Seconds after which the bench is stuck.
STUCK = 120.0
#: About what a small job's body has.
PAD = "x" * 900


@dataclass(frozen=True)
class Rate:
    """Deliveries a second, and the courier's microseconds of CPU for each."""

    a_second: float
    cpu: float


def rate(deliveries: int) -> Rate:
    """From the commit that wrote them to the last that was settled."""
    receiver = Receiver()
    with started("bench.models:Noop", TUNDISH_OUTBOUND_ALLOW="127.0.0.0/8") as bench:
        endpoints = _register(bench, [receiver.url(f"{number}/ok") for number in range(ENDPOINTS)])
        _tell(bench, endpoints)
        _wait(bench)
        before = bench.cpu()["courier"]
        _tell(bench, endpoints * (deliveries // ENDPOINTS))
        began = time.monotonic()
        _wait(bench)
        took = time.monotonic() - began
        return Rate(deliveries / took, (bench.cpu()["courier"] - before) / deliveries * 1e6)


def slowest(rounds: int, *bad: str) -> float:
    """Milliseconds within which 99 of 100 deliveries come to receivers that answer at once, beside `bad` ones."""
    receiver = Receiver()
    with started("bench.models:Noop", TUNDISH_OUTBOUND_ALLOW="127.0.0.0/8") as bench:
        good = ENDPOINTS - len(bad)
        words = [*bad, *["ok"] * good]
        endpoints = _register(bench, [receiver.url(f"{number}/{word}") for number, word in enumerate(words)])
        _tell(bench, endpoints)
        time.sleep(1)
        return told(receiver, lambda: _tell(bench, endpoints), rounds, good, bench.system.place.logs)


def told(receiver: Receiver, tell: Callable[[], None], rounds: int, good: int, logs: Path) -> float:
    """The same of `good` deliveries that each call of `tell` leads to: the latest count, however late they are."""
    receiver.seconds.clear()
    for _ in range(rounds):
        tell()
        time.sleep(PAUSE)
    until(lambda: len(receiver.seconds) >= rounds * good, logs)
    return quantile(receiver.seconds, 0.99) * 1000


def main(plan: Plan) -> None:
    deliveries, rounds = plan.of(20_000, 500), plan.of(100, 5)
    rates = measure(
        "webhooks", lambda: rate(deliveries), {}, plan.runs, lambda it: f"{it.a_second:,.0f}/s, {it.cpu:,.0f} us each"
    )
    beside = {
        "100 that answer": lambda: slowest(rounds),
    }
    late = measure("p99", lambda: slowest(rounds, "hang", "drip", "fail"), beside, plan.runs, lambda ms: f"{ms:.1f} ms")
    a_second, cpu = rates.of(lambda it: it.a_second), rates.of(lambda it: it.cpu)
    busy = median(a_second.values[OURS]) * median(cpu.values[OURS]) / 1e6
    rows = [
        row("deliveries/s from one courier", "deliveries/s", a_second, note=f"the courier takes {busy:.0%} of a core"),
        row("CPU of a delivery in the courier", "us", cpu, better="lower"),
        row(
            "97 that answer beside one that hangs, one that drips, one that fails: p99",
            "ms",
            late,
            reach=dict.fromkeys(beside, 2),
            moonshot=dict.fromkeys(beside, 1.1),
            better="lower",
        ),
    ]
    write("webhooks", plan, rows)


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
    bench.redis.publish(queue.OUTBOX, b"")


def _wait(bench: Bench) -> None:
    """Until nothing is pending."""
    pending = "SELECT count(*) FROM deliveries WHERE status = 'pending'"
    until(lambda: bench.database.execute(pending).fetchone() == (0,), bench.system.place.logs)


def until(all_came: Callable[[], bool], logs: Path) -> None:
    """Raises RuntimeError where they do not."""
    stuck = time.monotonic() + STUCK
    while not all_came():
        if time.monotonic() > stuck:
            raise RuntimeError(f"deliveries are pending after {STUCK:.0f} s; see {logs}")
        time.sleep(0.05)
