"""Measuring: each side in turn, a few times; what came of it as a row of medians and ratios."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, TypeVar

from bench.peers.environment import CannotRun

T = TypeVar("T")
U = TypeVar("U")

OURS = "ours"


@dataclass(frozen=True)
class Row:
    """One case: our median, the peers' and our ratio to each. `spread` is that of our runs as a fraction of their
    median. `better` says which way the ratio is better, `reach` and `moonshot` what it shall be, `missing` why a peer
    has no figure, `wall` the limit that a profile named."""

    case: str
    unit: str
    ours: float | None
    peers: dict[str, float | None]
    ratio: dict[str, float | None]
    runs: int
    spread: float
    better: str
    reach: dict[str, float] = field(default_factory=dict)
    moonshot: dict[str, float] = field(default_factory=dict)
    wall: str = ""
    peer_spread: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Measured(Generic[T]):
    """What each run of each side gave, and why a peer gave nothing."""

    values: dict[str, list[T]]
    missing: dict[str, str]

    def of(self, part: Callable[[T], U]) -> "Measured[U]":
        """One part of each value."""
        return Measured({name: list(map(part, each)) for name, each in self.values.items()}, self.missing)


def measure(
    what: str,
    ours: Callable[[], T],
    peers: Mapping[str, Callable[[], T]],
    runs: int,
    shown: Callable[[T], str],
) -> Measured[T]:
    """Run each side `runs` times, in turn. A peer that cannot run is named and left out."""
    values: dict[str, list[T]] = {name: [] for name in (OURS, *peers)}
    missing: dict[str, str] = {}
    for number in range(1, runs + 1):
        for name, run in ((OURS, ours), *peers.items()):
            if name in missing:
                continue
            try:
                value = run()
            except CannotRun as reason:
                missing[name] = str(reason)
                print(f"  {what}: {name} is not measured: {reason}", flush=True)
                continue
            values[name].append(value)
            print(f"  {what}, run {number} of {runs}: {name} {shown(value)}", flush=True)
    return Measured(values, missing)


def row(
    case: str,
    unit: str,
    measured: Measured[float],
    *,
    reach: Mapping[str, float] | None = None,
    moonshot: Mapping[str, float] | None = None,
    better: str = "higher",
    times_less: bool = False,
    note: str = "",
) -> Row:
    """The medians. The ratio is ours by the peer's, or with `times_less` the peer's by ours."""
    mine = measured.values[OURS]
    ours = median(mine)
    peers = {name: median(values) for name, values in measured.values.items() if name != OURS and values}
    ratio = {name: value / ours if times_less else ours / value for name, value in peers.items()}
    absent = dict.fromkeys(measured.missing)
    return Row(
        case=case,
        unit=unit,
        ours=ours,
        peers=peers | absent,
        ratio=ratio | absent,
        runs=len(mine),
        spread=spread(mine),
        better=better,
        reach=dict(reach or {}),
        moonshot=dict(moonshot or {}),
        peer_spread={name: spread(measured.values[name]) for name in peers},
        missing=measured.missing,
        note=note,
    )


def compare(
    case: str,
    unit: str,
    ours: Callable[[], float],
    peers: Mapping[str, Callable[[], float]],
    *,
    runs: int,
    reach: Mapping[str, float] | None = None,
    moonshot: Mapping[str, float] | None = None,
) -> Row:
    """Measure rates, and make their row."""
    measured = measure(case, ours, peers, runs, lambda value: f"{value:,.0f} {unit}")
    return row(case, unit, measured, reach=reach, moonshot=moonshot)


def spread(values: Sequence[float]) -> float:
    """From the least to the most, as a fraction of the median."""
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value that `fraction` of them do not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
