"""Folders for batches whose payloads are files: under TMPDIR, so that an operator can say which disk they take."""

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from tundish.blobs import CHUNK, Blobs
from tundish.file import File
from tundish.ids import to_text
from tundish.store import ClaimedJob

_PREFIX = "tundish-files-"
#: Bytes of the disk that are left to everybody else.
ROOM = 64 * CHUNK


class NoRoom(Exception):
    """The disk does not take an input."""


class Folder:
    """A batch's. It goes when it is removed, or when nobody holds the batch any more."""

    def __init__(self, path: Path, within: "Folders") -> None:
        self.path = path
        self._within = within  # which must not go first
        self.remove = weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)

    def fetch(self, job: ClaimedJob, blobs: Blobs) -> File:
        """A job's input as a file. Raises NoRoom, BlobMissing and BlobUnavailable."""
        path = self.path / f"input-{to_text('job', job.id)}"
        if shutil.disk_usage(self.path).free < job.size + ROOM:
            raise NoRoom(f"the worker's disk has no room for {job.size} bytes; free some, or set TMPDIR to another one")
        try:
            with path.open("wb") as file:
                if job.blob is None:
                    file.write(job.body or b"")
                else:
                    with blobs.reading(job.blob, job.etag) as source:
                        shutil.copyfileobj(source, file, CHUNK)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise NoRoom(f"the worker's disk does not take the input: {error.strerror or error}") from error
        return File(path, job.content_type)


class Folders:
    """Makes them, within one folder of this process. A lock tells those of live processes from what a kill left."""

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        _sweep(root)
        made = Path(tempfile.mkdtemp(prefix="tundish-new-", dir=root))
        lock = os.open(made, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Under the name that a sweep looks for only once it is locked.
        self._path = made.rename(root / made.name.replace("tundish-new-", _PREFIX))
        weakref.finalize(self, os.close, lock)
        weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True)

    def new(self) -> Folder:
        return Folder(Path(tempfile.mkdtemp(prefix="batch-", dir=self._path)), self)


def _sweep(root: Path) -> None:
    """Remove what processes that were killed have left."""
    for path in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or gone
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(lock)
