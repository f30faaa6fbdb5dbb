"""`./dev test` and `./dev check`."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from local.say import say
from local.supervise import TREE

_BIN = Path(sys.executable).parent
_TESTS = [sys.executable, "-m", "pytest"]
#: All of them three files at a time, each process with a system of its own: mostly they wait. On two cores two files
#: at a time took a fifth longer. The long files come first, so that at the end none is left alone.
_ALL = [*_TESTS, "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]
#: What CI runs, the quick ones first.
_CHECKS = [
    ("lint", [str(_BIN / "ruff"), "check", "."]),
    ("format", [str(_BIN / "ruff"), "format", "--check", "."]),
    ("types", [sys.executable, "-m", "mypy"]),
    ("contracts", [str(_BIN / "lint-imports")]),
    ("tests", _ALL),
]


def test(arguments: Sequence[str]) -> int:
    """All tests but chaos; with `--chaos` or `--chaos=full` the chaos suite alone."""
    if any(word.partition("=")[0] == "--chaos" for word in arguments):
        given = ["--chaos=tenth" if word == "--chaos" else word for word in arguments]
        files = [] if any(word.startswith("tests/") for word in given) else ["tests/chaos"]
        command = [*_TESTS, *files, "--timeout", "3600", *given]
        return subprocess.run(command, cwd=TREE).returncode
    return subprocess.run([*_TESTS, *arguments] if arguments else _ALL, cwd=TREE).returncode


def check(arguments: Sequence[str]) -> int:
    if arguments:
        say("usage: ./dev check")
        return 2
    for name, command in _CHECKS:
        began = time.monotonic()
        say(f"== {name}: {' '.join([Path(command[0]).name, *command[1:]])}")
        if code := subprocess.run(command, cwd=TREE).returncode:
            say(f"== {name} failed after {time.monotonic() - began:.0f} s")
            return code
        say(f"== {name}: passed in {time.monotonic() - began:.0f} s")
    return 0
