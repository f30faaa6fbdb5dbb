"""payload: a gigabyte by an upload through a model of files to a result, on a directory and on S3: by how much API and
worker grow at their peak, and how long it takes."""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx

from bench.measure import OURS, Measured, Row, row
from bench.plan import Plan
from bench.report import write
from bench.system import Bench, started
from local.place import read_state
from tests.s3 import ENVIRONMENT, Server

#: MiB that a process may grow by.
BOUND = 64.0
#: A piece of the payload; it is sent again and again.
PIECE = os.urandom(2**20)


def main(plan: Plan) -> None:
    count = plan.of(1024, 16)
    rows = _rows("a directory", count, {})
    with tempfile.TemporaryDirectory(prefix="tundish-bench-") as folder:
        server = Server(Path(folder))
        try:
            bucket = {"TUNDISH_BLOB_URL": "s3://bucket/bench", "TUNDISH_S3_ENDPOINT_URL": server.url, **ENVIRONMENT}
            rows += _rows("S3", count, bucket)
        finally:
            server.kill()
    write("payload", plan, rows)


def _rows(store: str, count: int, settings: dict[str, str]) -> list[Row]:
    with started("bench.models:Copied", **settings) as bench:
        worker = bench.start_worker()
        children = (read_state(bench.system.place.root) or {})["children"]
        pids = {"API": next(child["pid"] for child in children if child["name"] == "api"), "worker": worker}
        bench.wait_for_workers()
        before = {name: _forget_peak(pid) for name, pid in pids.items()}
        began = time.monotonic()
        _through(bench, count)
        took = time.monotonic() - began
        grown = {name: (_peak(pid) - before[name]) / 2**20 for name, pid in pids.items()}
    case = f"{count:,} MiB in and out, {store}"
    rows = [_row(f"{case}: growth of the {name}", "MiB", value, {"the bound": BOUND}) for name, value in grown.items()]
    return [*rows, _row(case, "s", took, {})]


def _row(case: str, unit: str, ours: float, bound: dict[str, float]) -> Row:
    measured = Measured({OURS: [ours], **{name: [value] for name, value in bound.items()}}, {})
    return row(case, unit, measured, reach=dict.fromkeys(bound, 1.0), better="lower")


def _through(bench: Bench, count: int) -> None:
    """The payload through the model, and compared. Raises RuntimeError."""
    sum = sha256()
    for piece in _pieces(count):
        sum.update(piece)
    api = bench.system.api
    key = {"authorization": f"Bearer {api.key}"}
    with (
        httpx.Client(base_url=api.url, trust_env=False, timeout=300, headers=key) as client,
        httpx.Client(base_url=api.url, trust_env=False, timeout=300) as anybody,
    ):
        asked = {"content_type": "video/mp4", "size": count * len(PIECE), "sha256": sum.hexdigest()}
        upload = client.post("/v1/uploads", json=asked).raise_for_status().json()
        anybody.put(upload["url"], content=_pieces(count), headers=upload["headers"]).raise_for_status()
        job = client.post("/v1/jobs", json={"model": "copied", "upload": upload["id"]}).raise_for_status().json()
        while job["status"] in ("queued", "running"):
            job = client.get(f"/v1/jobs/{job['id']}", params={"wait": 60}).raise_for_status().json()
        if job["status"] != "succeeded":
            raise RuntimeError(f"the job ended otherwise: {job['error']}")
        found = sha256()
        with client.stream("GET", f"/v1/jobs/{job['id']}/result", follow_redirects=True) as result:
            for piece in result.iter_raw():
                found.update(piece)
        if found.digest() != sum.digest() or result.headers["content-type"] != "video/mp4":
            raise RuntimeError("the result is not what was sent")


def _pieces(count: int) -> Iterator[bytes]:
    return (PIECE for _ in range(count))


def _peak(pid: int) -> int:
    """Bytes of memory that a process has held at most since `_forget_peak`."""
    [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) * 1024


def _forget_peak(pid: int) -> int:
    """Bytes that it holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _peak(pid)
