"""Lines in a file, on the disk when `write` returns: what a client was promised, and what a model has run."""

import os
from pathlib import Path


class Ledger:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *lines: str) -> None:
        """All in one write, so that those of several processes do not mix."""
        os.write(self._file, "".join(f"{line}\n" for line in lines).encode())
        os.fsync(self._file)

    def lines(self) -> list[list[str]]:
        """Each line's words."""
        return [line.split() for line in self._path.read_text().splitlines()]
