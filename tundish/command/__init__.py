"""The command line `tundish`: one file a word, each with its `NAME`, `HELP`, `arguments` and `run`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Protocol

from tundish.command import models, scale_sim


class Word(Protocol):
    """A module of this package. `run` gives the exit status; a ValueError or OSError of it is shown in one line."""

    NAME: str
    HELP: str

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, given: argparse.Namespace) -> int: ...


WORDS: Sequence[Word] = (models, scale_sim)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 2 for what cannot be used as it was given."""
    parser = argparse.ArgumentParser(prog="tundish", description="Tundish's command line.")
    words = parser.add_subparsers(required=True, metavar="|".join(word.NAME for word in WORDS))
    for word in WORDS:
        each = words.add_parser(word.NAME, help=word.HELP, description=word.HELP)
        word.arguments(each)
        each.set_defaults(run=word.run)
    given = parser.parse_args(arguments)
    try:
        status: int = given.run(given)
    except (OSError, ValueError) as error:
        print(f"tundish: {error}", file=sys.stderr)
        return 2
    return status
