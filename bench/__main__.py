"""`./dev bench [NAME]`."""

import importlib
import sys

from bench import report

BENCHES = ("drain", "single", "model", "real", "backlog", "memory")


def main(arguments: list[str]) -> int:
    if unknown := [name for name in arguments if name not in BENCHES]:
        print(f"bench: there is no {unknown[0]}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    for name in arguments or BENCHES:
        importlib.import_module(f"bench.{name}").main()
    print(report.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
