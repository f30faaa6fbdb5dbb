"""batches: two files of 50,000 lines through the no-op model, from the first POST until both have their files; beside
the same inputs by the batch call, from the first submit to the last stored result."""

import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import measure, row
from bench.plan import Plan
from bench.report import write
from bench.system import Bench, started

FILES = 2


def by_file(lines: int) -> float:
    """Lines a second."""
    with _serving() as bench:
        uploads = [_uploaded(bench, number, lines) for number in range(FILES)]
        began = time.monotonic()
        ids = [bench.system.api.post("/v1/batches", {"model": "noop", "upload": each})["id"] for each in uploads]
        while not all(_ended(bench, id, lines) for id in ids):
            time.sleep(0.2)
        return FILES * lines / (time.monotonic() - began)


def by_call(lines: int) -> float:
    """Inputs a second."""
    with _serving() as bench:
        began = bench.now()
        bench.submit("noop", list(range(FILES * lines)))
        return FILES * lines / (bench.wait_for_all(FILES * lines) - began)


@contextmanager
def _serving() -> Iterator[Bench]:
    with started("bench.models:Noop") as bench:
        bench.start_worker()
        bench.wait_for_workers()
        yield bench


def _uploaded(bench: Bench, number: int, lines: int) -> str:
    """The id of an upload of so many lines."""
    body = b"".join(b'{"custom_id":"%d-%d","input":%d}\n' % (number, line, line) for line in range(lines))
    made = bench.system.api.post("/v1/uploads", {"content_type": "application/jsonl", "size": len(body)})
    put = urllib.request.Request(bench.system.api.url + made["url"], body, made["headers"], method="PUT")
    with urllib.request.urlopen(put, timeout=60):
        return str(made["id"])


def _ended(bench: Bench, id: str, lines: int) -> bool:
    batch = bench.system.api.get(f"/v1/batches/{id}")
    if batch["finished_at"] and batch["counts"]["succeeded"] < lines:
        raise RuntimeError(f"a line failed: {batch}")
    return bool(batch["finished_at"])


def main(plan: Plan) -> None:
    lines, peer = plan.of(50_000, 500), "the batch call"
    measured = measure("batches", lambda: by_file(lines), {peer: lambda: by_call(lines)}, plan.runs, _shown)
    write("batches", plan, [row(f"two files of {lines:,} lines", "lines/s", measured, reach={}, moonshot={})])


def _shown(rate: float) -> str:
    return f"{rate:,.0f} lines/s"
