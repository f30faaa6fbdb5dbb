"""The list of an artifact's files. Its SHA-256 is the artifact's reference, so that there is one way to write it."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from tundish.artifact.refused import Refused
from tundish.artifact.screen import kind_of
from tundish.blobs import BlobMissing, Blobs, artifact_key
from tundish.strictjson import InvalidJSON, loads

FORMAT = "tundish-artifact/1"
#: What one artifact may take. A part of S3 has 8 MiB, and a blob 10,000 of them: larger weights come in shards.
FILES_MAX = 1000
FILE_BYTES_MAX = 64 << 30
BYTES_MAX = 4 << 40
MANIFEST_BYTES_MAX = 1 << 20
PATH_MAX = 255

_REFERENCE = re.compile(r"sha256:([0-9a-f]{64})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@ -]*(?<![. ])")


def digest_of(reference: str) -> str:
    """The hexadecimal digits of `sha256:…`. Raises Refused."""
    if not (found := _REFERENCE.fullmatch(reference)):
        raise Refused(f"{reference!r} is no artifact; write sha256: and 64 hexadecimal digits, as `models push` prints")
    return found[1]


def check_path(path: str) -> None:
    """Raises Refused for a path that could lead elsewhere, or mean another file on another system."""
    if len(path) > PATH_MAX or not all(map(_PART.fullmatch, path.split("/"))):
        raise Refused(
            f"{path[:300]!r} is no name for a file of an artifact: letters, digits and _ . + = @ - inside the folder,"
            f" no hidden ones, {PATH_MAX} characters at most"
        )


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """A file: its path within the artifact, its bytes, and their SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files, by their paths. `checkpoints`: files of torch.save may be among them."""

    files: tuple[Listed, ...]
    checkpoints: bool = False

    @classmethod
    def of(cls, files: Iterable[Listed], checkpoints: bool = False) -> "Manifest":
        """Raises Refused."""
        listed = tuple(sorted(files))
        if not 0 < len(listed) <= FILES_MAX:
            raise Refused(f"an artifact has from 1 to {FILES_MAX} files, and this one has {len(listed)}")
        for each in listed:
            check_path(each.path)
            kind_of(each.path, checkpoints)
            if not 0 <= each.size <= FILE_BYTES_MAX:
                raise Refused(f"{each.path} has over {FILE_BYTES_MAX:,} bytes; save the weights in shards")
            if not _DIGEST.fullmatch(each.sha256):
                raise Refused(f"{each.path} has no SHA-256")
        _check_apart([each.path for each in listed])
        manifest = cls(listed, checkpoints)
        if manifest.size > BYTES_MAX:
            raise Refused(f"the artifact has over {BYTES_MAX:,} bytes")
        return manifest

    @classmethod
    def parse(cls, body: bytes, reference: str) -> "Manifest":
        """The manifest of `reference`, from bytes that nobody vouches for. Raises Refused."""
        if len(body) > MANIFEST_BYTES_MAX:
            raise Refused(f"the manifest of {reference} has over {MANIFEST_BYTES_MAX:,} bytes")
        if sha256(body).hexdigest() != digest_of(reference):
            raise Refused(f"the manifest of {reference} is not what was pushed: it has another SHA-256")
        try:
            value: Any = loads(body)
            manifest = cls.of([_listed(**each) for each in value["files"]], value["checkpoints"] is True)
        except (InvalidJSON, KeyError, TypeError) as error:
            raise Refused(f"{reference} is no manifest of an artifact: {error}") from error
        if manifest.encode() != body:
            raise Refused(f"{reference} is no manifest of an artifact, as this version writes them")
        return manifest

    @classmethod
    def fetch(cls, blobs: Blobs, reference: str) -> "Manifest":
        """From the store. Raises Refused, BlobMissing and BlobUnavailable."""
        try:
            with blobs.reading(artifact_key(digest_of(reference))) as source:
                return cls.parse(source.read(MANIFEST_BYTES_MAX + 1), reference)
        except BlobMissing as error:
            raise BlobMissing(f"there is no artifact {reference}; push it: `tundish models push`") from error

    def encode(self) -> bytes:
        """The one way to write it."""
        value = {"checkpoints": self.checkpoints, "files": list(map(asdict, self.files)), "format": FORMAT}
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    @property
    def reference(self) -> str:
        return f"sha256:{sha256(self.encode()).hexdigest()}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.files)


def _listed(path: Any, size: Any, sha256: Any) -> Listed:
    if type(path) is not str or type(size) is not int or type(sha256) is not str:
        raise TypeError("a file has a path, a size and a SHA-256")
    return Listed(path, size, sha256)


def _check_apart(paths: Iterable[str]) -> None:
    """Raises Refused where two paths are one on a file system that takes a for A, or one is a file and a folder."""
    files: dict[str, str] = {}
    for path in paths:
        if path.casefold() in files:
            raise Refused(f"{path} and {files[path.casefold()]} are the same file on some systems; rename one")
        files[path.casefold()] = path
    for path in files.values():
        for folder in PurePosixPath(path.casefold()).parents:
            if str(folder) in files:
                raise Refused(f"{files[str(folder)]} is a file, and the folder of {path}")
