"""Payloads too large for a row: a directory whose URLs we sign and serve, or a bucket that speaks S3.

A key is tenant/day/job/attempt/name, so that what belongs together goes by its prefix: a tenant's day, a job, an
attempt whose result was never accepted. Such a blob is written once; the same bytes again do no harm. An upload lies
under tenant/uploads; its caller may overwrite it, and who reads it says by an ETag which bytes he means. A file of an
artifact lies under artifacts/sha256, and is deleted by nobody.

Only `s3.py` knows boto3, and it is imported when an S3 URL is opened: a directory does not pay for it.
"""

import os
import re
from hashlib import sha256
from pathlib import Path

from tundish.blobs.directory import Arrival, Directory
from tundish.blobs.interface import (
    CHUNK,
    UPLOAD_MAX,
    BadSignature,
    BlobChanged,
    BlobError,
    BlobMissing,
    BlobOversized,
    BlobRefused,
    Blobs,
    BlobTooLarge,
    BlobUnavailable,
    SignedPut,
    Stat,
)
from tundish.blobs.keys import artifact_key, batch_prefix, day_prefix, job_prefix, key, upload_key, upload_prefix
from tundish.settings import SettingError, Settings

__all__ = [
    "CHUNK",
    "UPLOAD_MAX",
    "Arrival",
    "BadSignature",
    "BlobChanged",
    "BlobError",
    "BlobMissing",
    "BlobOversized",
    "BlobRefused",
    "BlobTooLarge",
    "BlobUnavailable",
    "Blobs",
    "Directory",
    "SignedPut",
    "Stat",
    "artifact_key",
    "batch_prefix",
    "day_prefix",
    "job_prefix",
    "key",
    "open_blobs",
    "upload_key",
    "upload_prefix",
]


_BUCKET = re.compile("[A-Za-z0-9._-]+")


def open_blobs(settings: Settings) -> Blobs:
    """The store of TUNDISH_BLOB_URL. Raises SettingError."""
    scheme, _, rest = settings.blob_url.partition(":")
    place = rest.removeprefix("//")
    if scheme == "file" and place.startswith("/"):  # as it stands: a # or ? in it is no more than that
        # Without any secret the API serves loopback alone, and a URL holds as long as its process.
        secret = (settings.secret or settings.api_key).encode() or os.urandom(32)
        return Directory(Path(place), sha256(b"tundish blobs" + secret).digest(), settings.public_url)
    bucket, _, prefix = place.partition("/")
    if scheme == "s3" and _BUCKET.fullmatch(bucket):
        from tundish.blobs.s3 import S3

        return S3(bucket, prefix.strip("/"), settings.s3_endpoint_url)
    raise SettingError(f"TUNDISH_BLOB_URL is {settings.blob_url!r}; set it to file:///directory or s3://bucket/prefix")
