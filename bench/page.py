"""`python -m bench.page`: what the pages under `docs/` show of the results, between their markers."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import report, table
from bench.report import Result
from local.supervise import TREE

DOCS = TREE / "docs"


def performance(results: Sequence[Result]) -> str:
    """The table, what it does not hold, and what it was measured on."""
    ran = dict.fromkeys(f"{each.machine}; commit {each.commit[:10]}: {{}}" for each in results)
    where = [line.format(_named(results, line)) for line in ran]
    notes = [f"- {note}" for note in [*table.notes(results), *where]]
    return "\n".join([table.markdown(results), "", *notes])


PAGES: dict[str, Callable[[Sequence[Result]], str]] = {"performance.md": performance}


def page(name: str, text: str, results: Sequence[Result]) -> str:
    """The page with what stands between its markers made anew."""
    shown = PAGES[name](results)
    return re.sub(
        r"(<!-- made by python -m bench.page -->\n).*(<!-- to here -->)",
        lambda found: f"{found[1]}{shown}\n{found[2]}",
        text,
        flags=re.DOTALL,
    )


def rewrite(folder: Path = DOCS) -> None:
    results = report.results()
    for name in PAGES:
        path = folder / name
        path.write_text(page(name, path.read_text(), results))


def _named(results: Sequence[Result], line: str) -> str:
    return ", ".join(each.bench for each in results if line.startswith(f"{each.machine}; commit {each.commit[:10]}"))


if __name__ == "__main__":
    rewrite()
