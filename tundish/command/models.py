"""`tundish models`: the weights of models, in the store of blobs."""

import argparse
import sys
import time
from pathlib import Path

from tundish.blobs import BlobError, open_blobs
from tundish.settings import Settings

NAME = "models"
HELP = "Push the weights of a model to the store of blobs, pull them, or see what they are."


def arguments(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(required=True, metavar="push|pull|show", dest="do")
    push = words.add_parser("push", help="push a folder, and print the line that names it in a model")
    push.add_argument("folder", type=Path, metavar="DIR", help="of safetensors and the small files beside them")
    push.add_argument("--checkpoints", action="store_true", help="take files of torch.save too, which are pickles")
    pull = words.add_parser("pull", help="pull an artifact to this machine's cache, and print its folder")
    show = words.add_parser("show", help="print the files of an artifact: SHA-256, bytes, path")
    for word in (pull, show):
        word.add_argument("reference", metavar="sha256:…", help="what push has printed")


def run(given: argparse.Namespace) -> int:
    """Raises ValueError and OSError for what cannot be used, and where the store does not answer."""
    try:
        return {"push": _push, "pull": _pull, "show": _show}[given.do](given)
    except BlobError as error:
        raise ValueError(str(error)) from error


def _push(given: argparse.Namespace) -> int:
    from tundish.artifact import push

    settings = Settings.from_environment().embedded()
    with _Progress() as progress:
        pushed = push(given.folder, open_blobs(settings), given.checkpoints, progress.told)
    reference = pushed.manifest.reference
    print(
        f"{settings.blob_url} has {pushed.manifest.size:,} bytes in {len(pushed.manifest.files)} files,"
        f" {len(pushed.new)} of them new",
        file=sys.stderr,
    )
    print(f'{reference}\n\n    artifact = "{reference}"')
    return 0


def _pull(given: argparse.Namespace) -> int:
    from tundish.artifact import Cache, CacheError

    settings = Settings.from_environment().embedded()
    try:
        print(Cache.of(settings, open_blobs(settings)).pull(given.reference).path)
    except CacheError as error:
        raise ValueError(str(error)) from error
    return 0


def _show(given: argparse.Namespace) -> int:
    from tundish.artifact import Manifest

    manifest = Manifest.fetch(open_blobs(Settings.from_environment().embedded()), given.reference)
    for each in manifest.files:
        print(f"{each.sha256} {each.size:>14} {each.path}")
    return 0


class _Progress:
    """One line on a terminal, written over; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._began = self._last = time.monotonic()
        self._of: tuple[str, str] | None = None
        self._done = 0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr)

    def told(self, what: str, path: str, size: int, more: int) -> None:
        now = time.monotonic()
        if self._of != (what, path):
            self._of, self._began, self._done = (what, path), now, 0
        self._done += more
        if self._shown and (now > self._last + 0.1 or self._done == size):
            self._last = now
            rate = self._done / max(now - self._began, 0.001) / 1e6
            share = self._done / max(size, 1)
            print(f"\r\x1b[K{what} {path}: {share:.0%}, {rate:,.0f} MB/s", end="", file=sys.stderr, flush=True)
