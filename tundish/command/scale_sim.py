"""`tundish scale-sim`: what a scaling policy would have cost, and how long jobs would have waited."""

import argparse
import csv
import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from tundish.replay import Moment, Replayed, Terms, replay
from tundish.scaling import Policy

NAME = "scale-sim"
HELP = "Replay an arrival trace against measured service times; prints cost, waits and replicas of a policy."

#: Rows of the time line.
ROWS = 24
#: Looks of the autoscaler that are replayed at most: two years of them. Where there are more, a moment is wrong.
LOOKS = 5_000_000


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("trace", type=Path, help="CSV: a moment a line (seconds, or RFC 3339), or `seconds,count` a line")
    add("service", help="seconds of a replica that one job takes: a number, or a file with a measured one a line")
    add("--target-wait", type=float, nargs="+", default=[30.0], metavar="S", help="one or more to set side by side")
    add("--min", type=int, default=0, help="replicas at least (0)")
    add("--max", type=int, default=100, help="replicas at most (100)")
    add("--start-up", type=float, default=60.0, metavar="S", help="seconds until a new replica works (60)")
    add("--cool-down", type=float, default=300.0, metavar="S", help="seconds of less demand before one goes (300)")
    add("--every", type=float, default=15.0, metavar="S", help="seconds between two looks of the autoscaler (15)")
    add("--cost-per-hour", type=float, default=1.0, metavar="PRICE", help="of one replica (1)")


def run(given: argparse.Namespace) -> int:
    """Raises ValueError and OSError for what cannot be read."""
    if not 0 <= given.min <= given.max or given.max < 1:
        raise ValueError("--min is from 0 to --max, and --max is 1 or more")
    for name in ("start_up", "cool_down", "cost_per_hour"):
        if not 0 <= getattr(given, name) < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} is a number from 0")
    if not all(0 < seconds < math.inf for seconds in (given.every, *given.target_wait)):
        raise ValueError("--every and --target-wait are seconds over 0")
    with given.trace.open(newline="") as file:
        try:
            rows = list(csv.reader(file))
        except csv.Error as error:
            raise ValueError(f"{given.trace}: {error}") from error
    arrivals = moments(str(given.trace), rows)
    service = service_times(given.service)
    if (max(arrivals, default=0.0) + max(service) + given.start_up + given.cool_down) / given.every > LOOKS:
        raise ValueError(f"that takes over {LOOKS:,} looks, one every {given.every:g} s: are all moments of one kind?")
    terms = Terms(given.start_up, given.cool_down, given.every, given.cost_per_hour)
    policies = [Policy(wait, given.min, given.max) for wait in given.target_wait]
    replayed = [replay(arrivals, service, policy, terms) for policy in policies]
    print("\n".join(_table(policies, replayed, len(arrivals), sum(service) / len(service))))
    if len(replayed) == 1:
        print("\n".join(_line(replayed[0].line)))
    return 0


def moments(name: str, rows: Sequence[Sequence[str]]) -> list[float]:
    """The arrivals of a trace, in seconds from its first line. Of `seconds,count` rows, the jobs of a row are spread
    evenly until the next one; the last row lasts as long as the one before it, or a second. Raises ValueError."""
    filled = [(number, row) for number, row in enumerate(rows, 1) if row]
    if filled and not any(_moment(cell) is not None for cell in filled[0][1]):
        filled = filled[1:]  # the names of the columns
    if not filled:
        raise ValueError(f"{name} holds no arrival")
    columns = len(filled[0][1])
    read = [_row(name, number, row, columns) for number, row in filled]
    first = read[0][0]
    if columns == 1:
        earliest = min(at for at, _ in read)
        return sorted(at - earliest for at, _ in read)
    steps = [after - at for (at, _), (after, _) in pairwise(read)]
    if any(step <= 0 for step in steps):
        raise ValueError(f"{name}: the seconds of `seconds,count` rows must rise")
    steps.append(steps[-1] if steps else 1.0)
    return [
        at - first + step * place / jobs for (at, jobs), step in zip(read, steps, strict=True) for place in range(jobs)
    ]


def service_times(spec: str) -> list[float]:
    """A number, or the numbers of a file. Raises ValueError and OSError."""
    words = [spec] if _number(spec) is not None else Path(spec).read_text().split()
    numbers = [_number(word) for word in words]
    if not numbers or any(number is None or number <= 0 for number in numbers):
        raise ValueError(f"{spec}: service times are seconds over 0, one a line")
    return [number for number in numbers if number is not None]


def _row(name: str, number: int, row: Sequence[str], columns: int) -> tuple[float, int]:
    at = _moment(row[0])
    count = row[1].strip() if len(row) == 2 else "1"
    if at is None or not count.isdecimal() or len(row) > 2:
        raise ValueError(f"{name}, line {number}: {','.join(row)!r} is no moment, and no `seconds,count`")
    if len(row) != columns:
        raise ValueError(f"{name}, line {number}: {','.join(row)!r} is not of the kind of the lines before it")
    return at, int(count)


def _moment(text: str) -> float | None:
    number = _number(text)
    if number is not None:
        return number
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _table(policies: Sequence[Policy], replayed: Sequence[Replayed], jobs: int, job_s: float) -> Iterator[str]:
    yield f"{jobs:,} jobs, {job_s:g} s each, over {replayed[0].seconds:,.0f} s"
    names = {"target wait": 12, "cost": 10, "p50 wait": 10, "p99 wait": 10, "longest": 10, "mean": 8, "most": 6}
    yield "".join(f"{name:>{width}}" for name, width in names.items()) + "  replicas"
    for policy, each in zip(policies, replayed, strict=True):
        waits = "".join(f"{f'{each.wait(quantile):.2f} s':>10}" for quantile in (0.5, 0.99, 1.0))
        yield f"{f'{policy.target_wait:g} s':>12}{each.cost:>10.2f}{waits}{each.mean:>8.2f}{each.most:>6}"


def _line(line: Sequence[Moment]) -> Iterator[str]:
    """The time line: of each part, what waited and the replicas at their most."""
    yield f"{'seconds':>12}{'waiting':>10}{'replicas':>10}"
    size = math.ceil(len(line) / ROWS)
    first = line[0].at if line else 0.0
    for start in range(0, len(line), max(1, size)):
        part = line[start : start + size]
        replicas = max(each.replicas for each in part)
        waiting = max(each.waiting for each in part)
        yield f"{part[0].at - first:>12.0f}{waiting:>10}{replicas:>10}  {'#' * min(replicas, 60)}"
