"""The disk that a folder lies on."""

import shutil
from pathlib import Path

#: Bytes that are left to everybody else.
LEFT = 64 << 20


def room(folder: Path) -> int:
    """Bytes that the folder's disk has for us; under 0 where it is fuller than that."""
    return shutil.disk_usage(folder).free - LEFT
