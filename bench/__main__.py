"""`./dev bench [--quick] [NAME …]`."""

import argparse
import importlib
import sys
import traceback

from bench import page, report
from bench.plan import Plan
from local.say import say
from tundish import openfiles

#: In the order in which they run: the short ones first.
BENCHES = (
    *("submit", "status", "latency", "wake", "drain", "single", "model", "real", "swap", "scale", "backlog", "memory"),
    *("collate", "batches", "webhooks", "streams", "payload", "costs"),
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
    openfiles.allow()  # wake holds 2,000 connections
    broken = [name for name in given.names or BENCHES if not _ran(name, Plan(given.quick))]
    if not given.quick:
        page.rewrite()
    say(report.summary())
    if broken:
        say(f"broke, see above: {', '.join(broken)}")
    return 1 if broken else 0


def _ran(name: str, plan: Plan) -> bool:
    """Whether a bench came to its end: the others run all the same."""
    say(f"== {name}")
    try:
        importlib.import_module(f"bench.{name}").main(plan)
    except Exception:
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
