"""Blobs in a directory, behind URLs that we sign and serve."""

import hmac
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256 as new_sha256
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote, urlencode

from tundish.blobs.interface import (
    CHUNK,
    URL_EXPIRES,
    BadSignature,
    BlobChanged,
    BlobMissing,
    BlobRefused,
    Blobs,
    BlobTooLarge,
    BlobUnavailable,
    SignedPut,
    Stat,
    guarded,
    pinned,
)

#: What a signature covers, in the names of the URL's query.
GET, PUT = ("type", "expires"), ("type", "size", "sha256", "expires")


class Found(NamedTuple):
    """A blob that is open: whoever deletes it does not end who reads it."""

    file: BinaryIO
    content_type: str


class Directory(Blobs):
    """Files under `root`, named by the SHA-256 of a key's last part, so that no key can lead out of it. `secret` signs
    URLs under `base_url`."""

    def __init__(self, root: Path, secret: bytes, base_url: str = "") -> None:
        self._root = root
        self._secret = secret
        self._base_url = base_url
        self._named: set[tuple[Path, int]] = set()  # folders that many write to, whose names are durable

    def put(self, key: str, body: bytes, content_type: str) -> None:
        with _usable(self._root), self._part(key) as part:
            part.file.write(body)
            part.keep()

    def put_file(self, key: str, file: BinaryIO, content_type: str) -> None:
        with _usable(self._root), self._part(key) as part:
            shutil.copyfileobj(file, part.file, CHUNK)
            part.keep()

    @contextmanager
    def reading(self, key: str, etag: str | None = None, at: int = 0) -> Iterator[BinaryIO]:
        with _usable(self._root):
            opened = self._opened(key)
        with guarded(opened, partial(_usable, self._root)) as file:
            pinned(key, _stat(os.fstat(opened.fileno())).etag, etag)
            opened.seek(at)
            yield file

    def stat(self, key: str) -> Stat:
        with _usable(self._root):
            try:
                return _stat(self._path(key).stat())
            except FileNotFoundError:
                raise BlobMissing(f"no blob {key}") from None

    def copy(self, key: str, to: str, content_type: str, etag: str | None = None) -> None:
        with _usable(self._root):
            source, path = self._path(key), self._path(to)
            self._make(path.parent)
            try:
                os.link(source, path)  # what lies there may be replaced, and is never changed: one file serves both
            except FileNotFoundError:
                raise BlobMissing(f"no blob {key}") from None
            except FileExistsError:
                pass
            try:
                pinned(key, _stat(path.stat()).etag, etag)
            except BlobChanged:
                path.unlink()
                raise
            _sync(path.parent)

    def delete_prefix(self, prefix: str) -> None:
        folder = self._folder(prefix.rstrip("/"))
        with _usable(self._root):
            while folder.exists():
                with suppress(FileNotFoundError):  # somebody else deletes it too
                    shutil.rmtree(folder)

    def get_url(self, key: str, content_type: str) -> str:
        return self._url("GET", key, {"type": content_type, "expires": str(int(time.time()) + URL_EXPIRES)})

    def put_url(self, key: str, content_type: str, size: int, sha256: str | None, expires_in: int) -> SignedPut:
        expires = str(int(time.time()) + expires_in)
        signed = {"type": content_type, "size": str(size), "sha256": sha256 or "", "expires": expires}
        return SignedPut(self._url("PUT", key, signed), {"Content-Type": content_type, "Content-Length": str(size)})

    def holds_to(self, key: str, sha256: str) -> bool:
        return True  # `receive` is the only way in

    def open_signed(self, key: str, given: Mapping[str, str]) -> Found:
        """What the signed query of a GET leads to. Raises BadSignature, BlobMissing and BlobUnavailable."""
        signed = self._signed("GET", key, given, GET)
        with _usable(self._root):
            return Found(self._opened(key), signed["type"])

    def receive(self, key: str, given: Mapping[str, str]) -> "Arrival":
        """Take what the signed query of a PUT allows. Raises BadSignature and BlobMissing."""
        signed = self._signed("PUT", key, given, PUT)
        with _usable(self._root):
            return Arrival(self._new(key), int(signed["size"]), signed["sha256"])

    def check(self) -> None:
        with _usable(self._root), tempfile.TemporaryFile(dir=self._root):
            pass

    def _url(self, method: str, key: str, signed: dict[str, str]) -> str:
        query = urlencode({**signed, "signature": self._sign(method, key, *signed.values())})
        return f"{self._base_url}/v1/blobs/{quote(key)}?{query}"

    def _signed(self, method: str, key: str, given: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
        """What was signed: who passes a URL on may drop what is empty in its query. Raises BadSignature."""
        signed = {name: given.get(name, "") for name in names}
        signature = self._sign(method, key, *signed.values())
        if not hmac.compare_digest(signature.encode(), given.get("signature", "").encode()):
            raise BadSignature("the URL's signature is not valid")
        if int(signed["expires"]) < time.time():
            raise BadSignature("the URL has expired; ask for a new one where you got it")
        return signed

    def _sign(self, *signed: str) -> str:
        return hmac.new(self._secret, json.dumps(signed).encode(), "sha256").hexdigest()

    def _new(self, key: str) -> "_Part":
        path = self._path(key)
        self._make(path.parent)
        return _Part(path)

    def _make(self, folder: Path) -> None:
        """Make a folder, durable with those above it. Of those two that many write to, tenant and day, another may have
        made one and not synced its name yet."""
        shared = [self._root.joinpath(*folder.relative_to(self._root).parts[:depth]) for depth in (1, 2)]
        missing = list(takewhile(lambda each: not each.exists(), (folder, *folder.parents)))
        folder.mkdir(parents=True, exist_ok=True)
        names = {(each, each.stat().st_ino) for each in shared} - self._named
        for each in dict.fromkeys([*missing, *(each for each, _ in names)]):
            _sync(each.parent)
        self._named |= names

    @contextmanager
    def _part(self, key: str) -> "Iterator[_Part]":
        part = self._new(key)
        try:
            yield part
        finally:
            part.discard()

    def _opened(self, key: str) -> BinaryIO:
        """Raises BlobMissing."""
        try:
            return self._path(key).open("rb", buffering=0)
        except FileNotFoundError:
            raise BlobMissing(f"no blob {key}") from None

    def _folder(self, prefix: str) -> Path:
        parts = prefix.split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in parts):
            raise BlobMissing(f"no blob {prefix}")
        return self._root.joinpath(*parts)

    def _path(self, key: str) -> Path:
        folder, _, name = key.rpartition("/")
        return self._folder(folder) / new_sha256(name.encode()).hexdigest()


class _Part:
    """A file beside the place that it takes, in a folder that is there: whole and durable once it is kept."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        descriptor, name = tempfile.mkstemp(prefix="part-", dir=self.folder)
        self.file = os.fdopen(descriptor, "wb")
        self._name = Path(name)
        self._path = path

    def keep(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        os.rename(self._name, self._path)
        _sync(self.folder)

    def discard(self) -> None:
        """Remove what was not kept."""
        with suppress(OSError):  # what the disk did not take, it does not take now
            self.file.close()
        self._name.unlink(missing_ok=True)


class Arrival:
    """Bytes on their way in by a signed PUT; `discard` it in any case."""

    def __init__(self, part: _Part, size: int, sha256: str) -> None:
        self._part = part
        self._left = size
        self._size = size
        self._wanted = sha256
        self._sum = new_sha256()

    def write(self, piece: bytes) -> None:
        """Raises BlobTooLarge."""
        self._left -= len(piece)
        if self._left < 0:
            raise BlobTooLarge(f"the body is over the {self._size} bytes that the upload was made for")
        with _usable(self._part.folder):
            self._part.file.write(piece)
        if self._wanted:
            self._sum.update(piece)

    def keep(self) -> None:
        """Durable when this returns. Raises BlobRefused."""
        if self._left:
            raise BlobRefused(f"the body ends {self._left} bytes before the {self._size} that the upload was made for")
        if self._wanted and self._sum.hexdigest() != self._wanted:
            raise BlobRefused("the body has not the SHA-256 that the upload was made for")
        with _usable(self._part.folder):
            self._part.keep()

    def discard(self) -> None:
        self._part.discard()


def _stat(found: os.stat_result) -> Stat:
    return Stat(found.st_size, f'"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"')


@contextmanager
def _usable(root: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BlobUnavailable(f"the blob directory {root} cannot be used: {error.strerror or error}") from error


def _sync(folder: Path) -> None:
    """The names in it are durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
