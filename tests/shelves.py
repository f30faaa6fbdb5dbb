"""What a shelf needs in a test of one process."""

import math
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from tundish.artifact import Cache
from tundish.blobs import Directory
from workers.batch import Target, Waiting
from workers.gpu import Cpu, Device
from workers.share import Share
from workers.shelf import Shelf

#: For models that have no artifact.
NO_ARTIFACTS = Cache(Path("none"), Directory(Path("none"), b""))


def alone(limit: float = math.inf, device: Device | None = None) -> Share:
    """The share of a worker that nobody shares its device with; its file and its folder go when it does."""
    folder = tempfile.mkdtemp()
    share = Share(device or Cpu(), "alone", limit, Path(folder))
    share.open()
    weakref.finalize(share, _remove, share._file, folder)
    return share


def _remove(file: int, folder: str) -> None:
    os.close(file)
    shutil.rmtree(folder)


def bring(shelf: Shelf, target: Target, now: float = 1e12) -> None:
    """As the worker does it for a batch of the target, long after anything else was asked for."""
    choice = shelf.choose({target: Waiting(1.0, 0.0)}, now, idle=True)
    assert target in choice.targets
    shelf.drafted(target)
    with shelf.lend(target):
        pass
