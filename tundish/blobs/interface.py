"""What a store of blobs can do, and how it fails.

BlobError
├── BlobMissing       nothing lies under that key
│   └── BlobChanged   something else lies there than what was pinned
├── BlobUnavailable   the store cannot be used now; the message says to operators what to set right
│   └── BlobOversized it takes others, and none of that size
├── BlobRefused       bytes that are not what their signed URL was made for
│   └── BlobTooLarge  they are too many
└── BadSignature      a signed URL that is not ours, or has expired
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NamedTuple, cast

#: Bytes that are held at once where a blob is streamed.
CHUNK = 1 << 20
#: Bytes of an upload: one PUT of S3 carries no more.
UPLOAD_MAX = 5 * 2**30
#: Seconds that a presigned URL of `get_url` holds.
URL_EXPIRES = 900


class BlobError(Exception):
    pass


class BlobMissing(BlobError):
    pass


class BlobChanged(BlobMissing):
    pass


class BlobUnavailable(BlobError):
    pass


class BlobOversized(BlobUnavailable):
    pass


class BlobRefused(BlobError):
    pass


class BlobTooLarge(BlobRefused):
    pass


class BadSignature(BlobError):
    pass


class Stat(NamedTuple):
    """`etag` is another as soon as other bytes lie under the key."""

    size: int
    etag: str


def pinned(key: str, found: str, etag: str | None) -> None:
    """Raises BlobChanged where the ETag that was `found` is not the one that is wanted."""
    if etag is not None and found != etag:
        raise BlobChanged(f"the blob {key} was overwritten")


class SignedPut(NamedTuple):
    """A PUT that needs no key: the headers are bound by the signature, and must be sent along."""

    url: str
    headers: dict[str, str]


class Blobs(ABC):
    """A store of blobs. Each method raises BlobUnavailable where the store does not answer. An `etag` pins what is
    read: BlobChanged where other bytes lie there by now."""

    @abstractmethod
    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Durable when this returns. Raises BlobOversized."""

    @abstractmethod
    def put_file(self, key: str, file: BinaryIO, content_type: str) -> None:
        """As `put`, from an open file that is never held in memory."""

    def get(self, key: str, etag: str | None = None) -> bytes:
        """Raises BlobMissing."""
        with self.reading(key, etag) as file:
            return file.read()

    @abstractmethod
    def reading(self, key: str, etag: str | None = None, at: int = 0) -> AbstractContextManager[BinaryIO]:
        """The blob as a file to read from byte `at`, which is in it, to its end. Raises BlobMissing; its reads raise
        what `get` does."""

    @abstractmethod
    def stat(self, key: str) -> Stat:
        """Raises BlobMissing."""

    @abstractmethod
    def copy(self, key: str, to: str, content_type: str, etag: str | None = None) -> None:
        """Let the same bytes lie under another key. Raises BlobMissing."""

    @abstractmethod
    def delete_prefix(self, prefix: str) -> None:
        """Delete all that lies under a prefix that ends with a slash; nothing may lie there."""

    @abstractmethod
    def get_url(self, key: str, content_type: str) -> str:
        """A URL that serves the blob with its content type for URL_EXPIRES seconds, without a key."""

    @abstractmethod
    def put_url(self, key: str, content_type: str, size: int, sha256: str | None, expires_in: int) -> SignedPut:
        """A PUT of `size` bytes, with this SHA-256 (hex) where it is given, for `expires_in` seconds."""

    @abstractmethod
    def holds_to(self, key: str, sha256: str) -> bool:
        """Whether the store itself holds what was put there by `put_url` to its SHA-256, when it arrives or when it is
        read."""

    @abstractmethod
    def check(self) -> None:
        """Ask whether the store can be used."""

    def probe(self, key: str) -> None:
        """Write a blob among those of the same day, or the other uploads, and read it: what cannot be read although
        this can is damaged itself, and not the store, nor our right to read from it."""
        name = "/".join([*key.split("/")[:2], "probe"])
        self.put(name, b"", "application/octet-stream")
        try:
            self.get(name)
        except BlobMissing as error:
            raise BlobUnavailable("the blob store does not give what was just put there") from error


class _Guarded(io.RawIOBase):
    def __init__(self, file: Any, guard: Callable[[], AbstractContextManager[None]]) -> None:
        self._file = file
        self._guard = guard

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._guard():
            return int(self._file.readinto(buffer))

    def readall(self) -> bytes:  # in one piece: Python's own goes by 8 KiB
        with self._guard():
            return bytes(self._file.read())

    def close(self) -> None:
        self._file.close()
        super().close()


def guarded(file: Any, guard: Callable[[], AbstractContextManager[None]]) -> BinaryIO:
    """A file whose reads go on within `guard`, so that their faults are those of a store of blobs."""
    return io.BufferedReader(cast(io.RawIOBase, _Guarded(file, guard)), CHUNK)
