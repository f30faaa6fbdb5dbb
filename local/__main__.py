"""The words of `./dev`."""

import importlib
import os
import subprocess
import sys

from local.say import say
from local.supervise import TREE
from tundish.settings import SettingError

HELP = """usage: ./dev WORD

  up [-d] [--workers N] [--reload FILE]
                          start Tundish on this machine: Postgres, Valkey, API, worker, courier, chores;
                          with FILE, serve its models, and again whenever it is saved
  down                    stop it
  ps [--json]             show its processes, and how often each was started again
  demo                    start it in a temporary place, run real sentences through a real model, stop it
  test [ARGS]             run the tests (ARGS go to pytest)
  test --chaos[=full]     kill, freeze, cut and stall all parts under load, and count what is lost: nothing
  check                   lint, types, import contracts and tests: what CI runs
  bench [--quick] [NAME]  measure beside the peers: docs/performance.md"""


def main(arguments: list[str]) -> int:
    word, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    if word in ("help", "-h", "--help"):
        say(HELP)
        return 0
    try:
        if word in ("up", "down", "ps", "demo"):
            return int(importlib.import_module(f"local.{word}").main(rest))
    except SettingError as error:
        say(f"{word}: {error}")
        return 2
    if word in ("test", "check"):
        return int(getattr(importlib.import_module("local.checks"), word)(rest))
    if word == "bench":
        environment = {**os.environ, "PYTHONPATH": str(TREE)}
        return subprocess.run([sys.executable, "-P", "-m", "bench", *rest], env=environment).returncode
    print(f"./dev {word}: there is no such word\n\n{HELP}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
