"""The cache: artifacts on a machine's own disk, for any number of processes at once.

    files/SHA256          a file that was read and found right, of all artifacts that list it
    files/SHA256.part     one on its way, locked by who pulls it; its size is taken from the beginning
    artifacts/SHA256/     a manifest.json, and in files/ hard links to what it lists; locked, shared, by who uses it
    lock                  held while what is where changes, and never while bytes arrive

A name other than `.part` appears by a rename, once its bytes are on the disk. Locks are of the kernel: they go with
their process, so that after a kill nothing has to be repaired. What is used is read and judged before, whoever has
pulled it.
"""

import fcntl
import logging
import os
import shutil
import stat
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from tundish import disk
from tundish.artifact.manifest import Listed, Manifest, digest_of
from tundish.artifact.refused import Refused
from tundish.artifact.screen import judge
from tundish.blobs import CHUNK, Blobs, artifact_key
from tundish.model import Model
from tundish.settings import Settings

log = logging.getLogger(__name__)


class CacheError(Exception):
    """The cache cannot be used, or has no room; the message says what to set."""


class Held:
    """An artifact's files under `path`. Nobody evicts them while this is referenced."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        weakref.finalize(self, os.close, lock)


class Cache:
    """In `folder`, made when it is first used, up to `limit` bytes; 0: half of what its disk holds."""

    def __init__(self, folder: Path, blobs: Blobs, limit: int = 0) -> None:
        self._folder = folder
        self._blobs = blobs
        self._given_limit = limit
        self._files = folder / "files"
        self._artifacts = folder / "artifacts"
        self._known: set[tuple[str, ...]] = set()  # what this process has read and found right, and not since changed

    @classmethod
    def of(cls, settings: Settings, blobs: Blobs) -> "Cache":
        return cls(
            Path(os.path.expanduser(settings.cache_dir or "~/.cache/tundish")).absolute(), blobs, settings.cache_bytes
        )

    def equip(self, model: Model[Any, Any]) -> None:
        """Give a model the files of its artifact, for as long as it keeps its attributes. Raises what `pull` does."""
        if model.artifact is not None:
            held = self.pull(model.artifact)
            model.files = held.path
            vars(model)["_held"] = held

    def pull(self, reference: str) -> Held:
        """The files of an artifact, each read and judged; from the store of blobs where they are not here, or damaged.
        Raises Refused, CacheError, BlobMissing and BlobUnavailable."""
        home = self._artifacts / digest_of(reference)
        with self._usable():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._files.mkdir(exist_ok=True)
            held = Held(home / "files", _hold(home))
            os.utime(home)
            manifest = self._manifest(home, reference)
            if manifest.size > self._limit:
                raise CacheError(
                    f"{reference} has {manifest.size:,} bytes, and the cache in {self._folder} takes {self._limit:,};"
                    " set TUNDISH_CACHE_BYTES higher"
                )
            for listed in manifest.files:
                path = held.path / listed.path
                self._place(listed, path)
                with path.open("rb") as file:
                    judge(listed.path, file, listed.size, manifest.checkpoints)
        return held

    @property
    def _limit(self) -> int:
        return self._given_limit or shutil.disk_usage(self._folder).total // 2

    def _manifest(self, home: Path, reference: str) -> Manifest:
        path = home / "manifest.json"
        with suppress(FileNotFoundError, Refused):
            return Manifest.parse(path.read_bytes(), reference)
        manifest = Manifest.fetch(self._blobs, reference)
        with _alone(home / "manifest.part") as (part, descriptor):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, manifest.encode(), 0)
            os.fsync(descriptor)
            part.rename(path)
        return manifest

    def _place(self, listed: Listed, path: Path) -> None:
        """Let the file lie there, as it was listed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        source = self._files / listed.sha256
        while not self._sound(path, listed):
            with _alone(source.with_suffix(".part")) as (part, descriptor):
                if missing := not self._sound(source, listed):
                    self._download(listed, descriptor)
                with self._locked(), suppress(FileNotFoundError):  # it was evicted since it was looked at
                    if missing:
                        part.rename(source)
                    path.unlink(missing_ok=True)
                    path.hardlink_to(source)
                    self._known.add(_mark(listed, path.lstat()))

    def _sound(self, path: Path, listed: Listed) -> bool:
        """Whether it is there, undamaged. What has not changed since this process has read it is not read again."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            return False
        if stat.S_ISREG(found.st_mode) and found.st_size == listed.size:
            mark = _mark(listed, found)
            if mark in self._known:
                return True
            with path.open("rb") as file:
                if file_digest(file, "sha256").hexdigest() == listed.sha256:
                    self._known.add(mark)
                    return True
        log.warning("%s is damaged: it is pulled again", path)
        return False

    def _download(self, listed: Listed, descriptor: int) -> None:
        with self._locked():
            os.ftruncate(descriptor, 0)
            self._make_room(listed.size)
            os.ftruncate(descriptor, listed.size)
        began, sum, left = time.monotonic(), sha256(), listed.size
        with (
            self._blobs.reading(artifact_key(listed.sha256)) as source,
            os.fdopen(descriptor, "wb", closefd=False) as file,
        ):
            while piece := source.read(CHUNK):
                left -= len(piece)
                if left < 0:
                    raise Refused(f"{listed.path} is refused: it has over the {listed.size:,} bytes that were pushed")
                sum.update(piece)
                file.write(piece)
        if left or sum.hexdigest() != listed.sha256:
            raise Refused(f"{listed.path} is refused: it is not what was pushed, sha256:{listed.sha256}")
        os.fchmod(descriptor, 0o444)
        os.fsync(descriptor)
        seconds = time.monotonic() - began
        log.info("pulled %s: %.0f MiB in %.1f s", listed.path, listed.size / 2**20, seconds)

    def _make_room(self, size: int) -> None:
        """Evict what was not used for the longest time, until so many bytes more are within the limit."""
        for part in self._files.glob("*.part"):
            _remove_if_free(part)  # of a process that was killed
        taken = sum(found.st_size for _, found in _stats(self._files))
        room = disk.room(self._folder)
        over = max(taken + size - self._limit, size - room) - self._drop_unlisted()
        for home, _ in sorted(_stats(self._artifacts), key=lambda each: each[1].st_mtime_ns):
            if over > 0 and _remove_if_free(home):
                log.info("evicted the artifact sha256:%s", home.name)
                over -= self._drop_unlisted()
        if over > 0:
            raise CacheError(
                f"the cache in {self._folder} has no room for {size:,} bytes: it takes {self._limit:,}, its disk has"
                f" {max(0, room):,} left, and what is there is in use; set TUNDISH_CACHE_BYTES higher, or"
                " TUNDISH_CACHE_DIR to another disk"
            )

    def _drop_unlisted(self) -> int:
        """Remove the files of no artifact that is here. The bytes that this gives back."""
        given_back = 0
        for path, found in _stats(self._files):
            if found.st_nlink == 1 and path.suffix != ".part":
                path.unlink()
                given_back += found.st_size
        return given_back

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"the cache in {self._folder} cannot be used: {error.strerror or error}; set TUNDISH_CACHE_DIR"
            ) from error


def _stats(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process is done with it
            yield path, path.stat()


def _mark(listed: Listed, found: os.stat_result) -> tuple[str, ...]:
    stated = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return (listed.sha256, *map(str, stated))


def _hold(home: Path) -> int:
    """A shared lock on an artifact's folder, which is made where it is not there."""
    while True:
        home.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = os.open(home, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _is(home, lock):
                return lock
            os.close(lock)  # it was evicted before it was locked


@contextmanager
def _alone(path: Path) -> Iterator[tuple[Path, int]]:
    """A file that this process alone has open and locked; unless it gets another name, it is removed."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is(path, descriptor):
            break
        os.close(descriptor)  # who had it before has renamed or removed it
    try:
        yield path, descriptor
    finally:
        if _is(path, descriptor):
            path.unlink()
        os.close(descriptor)


def _remove_if_free(path: Path) -> bool:
    """Remove a file or folder, unless somebody has locked it."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is(path, lock):  # who had it has just finished, and another one has begun there
            return False
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(lock)
    return True


def _is(path: Path, descriptor: int) -> bool:
    """Whether the open file lies there."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
