"""`python -m bench.page`: what the pages under `docs/` show of the results, between their markers."""

import re
from collections.abc import Callable, Sequence

from bench import report, scaling, table
from bench.report import Result
from local.supervise import TREE

DOCS = TREE / "docs"


def performance(results: Sequence[Result]) -> str:
    """The table, what it does not hold, what it was measured on, and the curves."""
    ran = dict.fromkeys(f"{each.machine}; commit {each.commit[:10]}: {{}}" for each in results)
    where = [line.format(_named(results, line)) for line in ran]
    notes = [f"- {note}" for note in [*table.notes(results), *where]]
    curves = [f"\n![{curve.title}](../bench/results/{curve.name}.png)" for each in results for curve in each.curves]
    return "\n".join([table.markdown(results), "", *notes, *curves])


def scaled(results: Sequence[Result]) -> str:
    """What the simulation prints with the measured costs."""
    [costs] = [each for each in results if each.bench == "costs"]
    return f"```\n{scaling.report(scaling.Costs(costs.figures), scaling.Scenario())}\n```"


PAGES: dict[str, Callable[[Sequence[Result]], str]] = {"performance.md": performance, "scaling.md": scaled}


def page(name: str, text: str, results: Sequence[Result]) -> str:
    """The page with what stands between its markers made anew."""
    shown = PAGES[name](results)
    return re.sub(
        r"(<!-- made by python -m bench.page -->\n).*(<!-- to here -->)",
        lambda found: f"{found[1]}{shown}\n{found[2]}",
        text,
        flags=re.DOTALL,
    )


def rewrite() -> None:
    results = report.results()
    for name in PAGES:
        path = DOCS / name
        path.write_text(page(name, path.read_text(), results))


def _named(results: Sequence[Result], line: str) -> str:
    return ", ".join(each.bench for each in results if line.startswith(f"{each.machine}; commit {each.commit[:10]}"))


if __name__ == "__main__":
    rewrite()
