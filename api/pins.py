"""Pins: an upload becomes somebody's input. What its caller overwrites from then on is not read."""

from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from api import database
from api.patience import no_blobs, of_blobs, of_blobs_at_length
from tundish import store
from tundish.blobs import CHUNK, BlobChanged, BlobError, BlobMissing, Blobs, Stat, upload_key
from tundish.errors import Conflict, NotFound
from tundish.ids import from_text

#: Seconds that an upload is kept past the retention of what reads it: rows go with their whole day.
MARGIN = 2 * 86400.0

_OTHER = "has other bytes than those it was made for, or was just overwritten"


class Pinned(NamedTuple):
    """The bytes that an upload holds now: a blob under `key`, read by `etag`."""

    id: UUID
    key: str
    etag: str
    size: int
    content_type: str


class Pins:
    """Looks at uploads, and keeps those that something reads."""

    def __init__(self, engine: store.AsyncEngine, blobs: Blobs, retention: float) -> None:
        self._engine = engine
        self._blobs = blobs
        self._keep = retention + MARGIN

    async def pin(self, tenant: int, text: str) -> Pinned:
        """The upload of an id. It may be pinned as often as one likes before it expires, and is kept as long as a job
        may need it. Raises NotFound, Conflict and Unavailable."""
        id = from_text("upl", text)
        upload = None if id is None else await database.run(self._engine, store.read_upload, tenant, id)
        if upload is None:
            raise NotFound("upload_not_found", "there is no such upload; make one by POST /v1/uploads")
        if upload.expired:
            raise _expired()
        key = upload_key(tenant, upload.id)
        try:
            found = await of_blobs(self._blobs.stat, key)
            await of_blobs_at_length(self._check, key, upload, found)
        except BlobChanged as error:
            raise _mismatch(_OTHER) from error
        except BlobMissing as error:
            detail = "the upload holds nothing yet; PUT its bytes to its url first, with its headers"
            raise Conflict("upload_incomplete", detail) from error
        except BlobError as error:
            raise no_blobs() from error
        kept = await database.run(self._engine, store.keep_upload, tenant, upload.id, etag=found.etag, keep=self._keep)
        if not kept:
            raise _expired()
        return Pinned(upload.id, key, found.etag, found.size, upload.content_type)

    async def read(self, pinned: Pinned) -> bytes:
        """All of it, into memory. Raises Conflict and Unavailable."""
        try:
            return await of_blobs(self._blobs.get, pinned.key, pinned.etag)
        except BlobMissing as error:
            raise _mismatch(_OTHER) from error
        except BlobError as error:
            raise no_blobs() from error

    async def check(self, key: str, etag: str) -> None:
        """Raises Conflict where the bytes that were pinned are gone, and Unavailable."""
        try:
            same = (await of_blobs(self._blobs.stat, key)).etag == etag
        except BlobMissing:
            same = False
        except BlobError as error:
            raise no_blobs() from error
        if not same:
            raise Conflict("input_unavailable", "the upload was overwritten after the job was submitted, or is gone")

    def _check(self, key: str, upload: store.Upload, found: Stat) -> None:
        """A store may not heed what its URL was signed for. Raises Conflict."""
        if found.size != upload.size:
            raise _mismatch(f"holds {found.size} bytes, not the {upload.size} that it was made for")
        if not upload.sha256 or found.etag == upload.etag or self._blobs.holds_to(key, upload.sha256):
            return
        sum = sha256()
        with self._blobs.reading(key, found.etag) as file:
            while piece := file.read(CHUNK):
                sum.update(piece)
        if sum.hexdigest() != upload.sha256:
            raise _mismatch("has not the SHA-256 that it was made for")


def _expired() -> Conflict:
    return Conflict("upload_expired", "the upload has expired; make a new one by POST /v1/uploads")


def _mismatch(fault: str) -> Conflict:
    return Conflict("upload_mismatch", f"the upload {fault}; PUT its bytes again, or make a new one")
