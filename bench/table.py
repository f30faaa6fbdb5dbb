"""The rows of results as one table: for the terminal, and for a page."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bench.measure import Row

if TYPE_CHECKING:
    from bench.report import Result

HEAD = ("bench", "case", "Tundish", "beside it", "ratio", "spread", "reach", "moonshot", "verdict")


class Line(NamedTuple):
    """A row beside one of its peers, as text; without a peer those columns are empty."""

    bench: str
    case: str
    ours: str
    peer: str
    ratio: str
    spread: str
    reach: str
    moonshot: str
    verdict: str


def lines(results: "Sequence[Result]") -> Iterator[Line]:
    for result in results:
        for row in result.rows:
            for peer in [*row.peers] or [""]:
                line = _line(result.bench, row, peer)
                yield line._replace(verdict="quick run" if line.verdict else "") if result.quick else line


def terminal(results: "Sequence[Result]") -> str:
    """Columns as wide as what stands in them; under it why a figure is missing, and what limits it."""
    shown = [Line(*HEAD), *lines(results)]
    if len(shown) == 1:
        return ""
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in shown]
    return "\n".join([*table, *(f"  {note}" for note in notes(results))])


def markdown(results: "Sequence[Result]") -> str:
    shown = [Line(*HEAD), Line(*["---"] * len(HEAD)), *lines(results)]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)


def notes(results: "Sequence[Result]") -> Iterator[str]:
    """What the columns do not hold: why a peer has no figure, and the walls."""
    for result in results:
        missing: dict[str, str] = {}
        for row in result.rows:
            missing |= row.missing
            if row.note:
                yield f"{result.bench}, {row.case}: {row.note}"
        yield from (f"{result.bench}: {peer} is not measured: {reason}" for peer, reason in missing.items())
        yield from (f"{result.bench}: the wall: {wall}" for wall in sorted({row.wall for row in result.rows} - {""}))


def verdict(row: Row, peer: str) -> str:
    if peer not in row.reach:
        return ""
    ratio = row.ratio.get(peer)
    if ratio is None:
        return "not measured"
    if peer in row.moonshot and _reaches(row, ratio, row.moonshot[peer]):
        return "moonshot"
    return "reached" if _reaches(row, ratio, row.reach[peer]) else "not reached"


def verdict_line(results: "Sequence[Result]") -> str:
    """Which rows reach their figures beside all their peers."""
    if any(result.quick for result in results):
        return "a quick run: everything works, and nothing is measured"
    sorted_out: dict[str, list[str]] = {"reached": [], "not reached": [], "not measured": []}
    for result in results:
        for row in result.rows:
            verdicts = {verdict(row, peer) for peer in row.reach}
            for name, rows in reversed(sorted_out.items()):
                if name in verdicts or (name == "reached" and verdicts):
                    rows.append(f"{result.bench} ({row.case})")
                    break
    parts = {"reached": "reach their figure", "not reached": "do not", "not measured": "not measured"}
    return "; ".join(f"{parts[name]}: {', '.join(rows) or 'none'}" for name, rows in sorted_out.items())


def number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "not measured"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


def _line(bench: str, row: Row, peer: str) -> Line:
    beside = f"{peer}: {number(row.peers[peer], row.unit)}" if peer else ""
    return Line(
        bench=bench,
        case=row.case,
        ours=number(row.ours, row.unit),
        peer=beside,
        ratio=number(row.ratio[peer]) if peer else "",
        spread="" if row.ours is None else f"{row.spread:.0%} of {row.runs}",
        reach=f"{row.reach[peer]:g}" if peer in row.reach else "",
        moonshot=f"{row.moonshot[peer]:g}" if peer in row.moonshot else "",
        verdict=verdict(row, peer) if peer else "",
    )


def _reaches(row: Row, ratio: float, wanted: float) -> bool:
    return ratio >= wanted if row.better == "higher" else ratio <= wanted
