"""Folders for batches whose payloads are files: under TMPDIR, so that an operator can say which disk they take."""

import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from tundish import disk
from tundish.blobs import CHUNK, Blobs
from tundish.file import File
from tundish.ids import to_text
from tundish.store import ClaimedJob

_PREFIX = "tundish-files-"


class DiskFull(Exception):
    """The disk does not take an input, or a batch's folder: it is full, or refuses to be written to."""


class Folder:
    """A batch's. It goes when it is removed, or when nobody holds the batch any more."""

    def __init__(self, path: Path, within: "Folders") -> None:
        self.path = path
        self._within = within  # which must not go first
        self.remove = weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)

    def fetch(self, job: ClaimedJob, blobs: Blobs) -> File:
        """A job's input as a file; what lay at a URL has arrived before. Raises DiskFull, BlobMissing and
        BlobUnavailable."""
        if job.body is not None or job.blob is not None:
            with self.arriving(job.id, job.size) as file:
                if job.blob is None:
                    file.write(job.body or b"")
                else:
                    with blobs.reading(job.blob, job.etag) as source:
                        shutil.copyfileobj(source, file, CHUNK)
        return File(self._input(job.id), job.content_type)

    @contextmanager
    def arriving(self, job: UUID, size: int = 0) -> Iterator["Arriving"]:
        """A job's input, to be written: `size` bytes of it are known to come. It stays only as a whole. Raises
        DiskFull."""
        path = self._input(job)
        try:
            with _disk(path, size), path.open("wb") as file:
                yield Arriving(path, file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def part(self, jobs: Iterable[UUID]) -> "Folder":
        """A new folder, to which goes what has arrived of these jobs. Raises DiskFull."""
        new = self._within.new()
        for job in jobs:
            with _taken(), suppress(FileNotFoundError):
                self._input(job).rename(new._input(job))
        return new

    def _input(self, job: UUID) -> Path:
        return self.path / f"input-{to_text('job', job)}"


class Arriving:
    """An input on its way to the disk."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    def write(self, piece: bytes) -> None:
        """Raises DiskFull."""
        with _disk(self._path, len(piece)):
            self._file.write(piece)


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
        """Raises DiskFull."""
        with _taken():
            return Folder(Path(tempfile.mkdtemp(prefix="batch-", dir=self._path)), self)


@contextmanager
def _disk(path: Path, size: int) -> Iterator[None]:
    """For a file that `size` more bytes come to. Raises DiskFull."""
    with _taken():
        if disk.room(path.parent) < size:
            raise DiskFull("the worker's disk has no room for the input; free some, or set TMPDIR to another one")
        yield


@contextmanager
def _taken() -> Iterator[None]:
    """What the disk does not take within the block is DiskFull."""
    try:
        yield
    except OSError as error:
        raise DiskFull(f"the worker's disk does not take the input: {error.strerror or error}") from error


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
