"""Push: a folder becomes an artifact in the store of blobs."""

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from tundish.artifact.manifest import FILES_MAX, PATH_MAX, Listed, Manifest, check_path, digest_of
from tundish.artifact.refused import Refused
from tundish.artifact.screen import judge, kind_of
from tundish.blobs import CHUNK, BlobMissing, Blobs, artifact_key
from tundish.media import JSON, OCTETS

#: Told what is being done with which file, how large it is, and how many bytes more are done.
Told = Callable[[str, str, int, int], None]


class Pushed(NamedTuple):
    """`new` are the files that the store did not have."""

    manifest: Manifest
    new: list[Listed]


def push(folder: Path, blobs: Blobs, checkpoints: bool = False, told: Told = lambda *_: None) -> Pushed:
    """All is judged before the first byte is sent, and the manifest comes last. Raises Refused, OSError and
    BlobUnavailable."""
    manifest = read(folder, checkpoints, told)
    new = [each for each in manifest.files if not _there(blobs, each)]
    for each in new:
        with _opened(folder / each.path) as file:
            source = cast(BinaryIO, _Same(file, each, told))
            blobs.put_file(artifact_key(each.sha256), source, OCTETS)
    blobs.put(artifact_key(digest_of(manifest.reference)), manifest.encode(), JSON)
    return Pushed(manifest, new)


def read(folder: Path, checkpoints: bool = False, told: Told = lambda *_: None) -> Manifest:
    """The manifest of a folder. Raises Refused and OSError."""
    paths = []
    for path in _walk(folder, ""):
        check_path(path)
        kind_of(path, checkpoints)
        paths.append(path)
        if len(paths) > FILES_MAX:
            raise Refused(f"{folder} has over {FILES_MAX} files")
    return Manifest.of([_read(folder, path, checkpoints, told) for path in paths], checkpoints)


def _walk(folder: Path, within: str) -> Iterator[str]:
    with os.scandir(folder) as found:
        for each in sorted(found, key=lambda each: each.name):
            path = f"{within}{each.name}"
            if each.is_symlink():
                raise Refused(f"{path} is a symbolic link; put the file itself there")
            if each.is_dir(follow_symlinks=False):
                if len(path) > PATH_MAX:
                    raise Refused(f"{path[:300]!r} lies too deep: a file's path has {PATH_MAX} characters at most")
                yield from _walk(Path(each.path), f"{path}/")
            elif each.is_file(follow_symlinks=False):
                yield path
            else:
                raise Refused(f"{path} is neither a file nor a folder")


def _read(folder: Path, path: str, checkpoints: bool, told: Told) -> Listed:
    with _opened(folder / path) as file:
        listed = Listed(path, os.fstat(file.fileno()).st_size, "")
        judge(path, file, listed.size, checkpoints)
        file.seek(0)
        sum, size = sha256(), 0
        while piece := file.read(CHUNK):
            sum.update(piece)
            size += len(piece)
            told("reading", path, listed.size, len(piece))
    return Listed(path, size, sum.hexdigest())


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """No link is followed, and no pipe waited for, should one be there by now."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Refused(f"{path} is not a file")
        yield file


def _there(blobs: Blobs, listed: Listed) -> bool:
    try:
        return blobs.stat(artifact_key(listed.sha256)).size == listed.size
    except BlobMissing:
        return False


class _Same(io.RawIOBase):
    """A file that is read once, from its beginning to its end, and must still be what was listed: its last byte is not
    given away before that is known. Raises Refused."""

    def __init__(self, file: BinaryIO, listed: Listed, told: Told) -> None:
        self._file = file
        self._listed = listed
        self._told = told
        self._sum = sha256()
        self._left = listed.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        self._left -= len(piece)
        self._sum.update(piece)
        whole = self._left == 0 and self._sum.hexdigest() == self._listed.sha256
        if not whole and (self._left <= 0 or len(piece) < len(buffer)):
            raise Refused(f"{self._listed.path} has changed since it was read; push again")
        buffer[: len(piece)] = piece
        self._told("pushing", self._listed.path, self._listed.size, len(piece))
        return len(piece)
