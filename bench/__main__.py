"""`./dev bench [--quick] [NAME …]`."""

import argparse
import importlib
import resource
import sys

from bench import page, report
from bench.plan import Plan
from local.say import say

#: In the order in which they run: the short ones first.
BENCHES = (
    *("submit", "status", "latency", "wake", "drain", "single", "model", "real", "scale", "backlog", "memory"),
    "costs",
)
#: Runs by name alone: it needs a GPU.
NAMED = ("gpu",)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measure Tundish beside its peers, as ratios.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=", ".join([*BENCHES, *NAMED]) + "; without: all but gpu"
    )
    parser.add_argument("--quick", action="store_true", help="small counts: shows that a bench works, measures nothing")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in (*BENCHES, *NAMED)]:
        parser.error(f"there is no {unknown[0]}; there are: {', '.join([*BENCHES, *NAMED])}")
    # wake holds 2,000 connections, and so does the API: each is an open file.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for name in given.names or BENCHES:
        say(f"== {name}")
        importlib.import_module(f"bench.{name}").main(Plan(given.quick))
    if not given.quick:
        page.rewrite()
    say(report.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
