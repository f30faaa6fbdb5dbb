"""Payloads too large for a row: a directory whose URLs we sign and serve, or a bucket that speaks S3.

A key is tenant/day/job/attempt/name, so that what belongs together goes by its prefix: a tenant's day, a job, an
attempt whose result was never accepted. A blob is written once; the same bytes again do no harm.

    BlobError
    ├── BlobMissing       nothing lies under that key
    ├── BlobUnavailable   the store cannot be used now; the message says to operators what to set right
    └── BadSignature      a signed URL that is not ours, or has expired

Only this file knows boto3, and it is imported when an S3 URL is opened: a directory does not pay for it.
"""

import hmac
import json
import os
import re
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID

from tundish.ids import time_of, to_text
from tundish.settings import SettingError, Settings

#: Seconds that a presigned URL holds.
URL_EXPIRES = 900


class BlobError(Exception):
    pass


class BlobMissing(BlobError):
    pass


class BlobUnavailable(BlobError):
    pass


class BadSignature(BlobError):
    pass


def job_prefix(tenant: int, job: UUID) -> str:
    """Under which all blobs of a job lie."""
    return f"{day_prefix(tenant, f'{time_of(job):%Y%m%d}')}{to_text('job', job)}/"


def day_prefix(tenant: int, day: str) -> str:
    """Under which all blobs of a tenant's jobs of a day (`20261124`) lie."""
    return f"{tenant}/{day}/"


def key(tenant: int, job: UUID, attempt: int, name: str) -> str:
    """The key of a job's payload; attempt 0 is the submit."""
    return f"{job_prefix(tenant, job)}{attempt}/{name}"


class Blobs(ABC):
    """A store of blobs. Each method raises BlobUnavailable where the store does not answer."""

    @abstractmethod
    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Durable when this returns."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Raises BlobMissing."""

    @abstractmethod
    def copy(self, key: str, to: str, content_type: str) -> None:
        """Let the same bytes lie under another key. Raises BlobMissing."""

    @abstractmethod
    def delete_prefix(self, prefix: str) -> None:
        """Delete all that lies under a prefix that ends with a slash; nothing may lie there."""

    @abstractmethod
    def get_url(self, key: str, content_type: str) -> str:
        """A URL that serves the blob with its content type for URL_EXPIRES seconds, without a key."""

    @abstractmethod
    def check(self) -> None:
        """Ask whether the store can be used."""


class Found(NamedTuple):
    path: Path
    content_type: str


class Directory(Blobs):
    """Files under `root`, named by the SHA-256 of a key's last part, so that no key can lead out of it. `secret` signs
    URLs under `base_url`."""

    def __init__(self, root: Path, secret: bytes, base_url: str = "") -> None:
        self._root = root
        self._secret = secret
        self._base_url = base_url

    def put(self, key: str, body: bytes, content_type: str) -> None:
        with _usable(self._root):
            path = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(prefix="part-", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(part, path)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
            _sync(path.parent)

    def get(self, key: str) -> bytes:
        with _usable(self._root):
            try:
                return self._path(key).read_bytes()
            except FileNotFoundError:
                raise BlobMissing(f"no blob {key}") from None

    def copy(self, key: str, to: str, content_type: str) -> None:
        with _usable(self._root):
            source, path = self._path(key), self._path(to)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, path)  # a blob is written once: one file can serve both
            except FileNotFoundError:
                raise BlobMissing(f"no blob {key}") from None
            except FileExistsError:
                pass
            _sync(path.parent)

    def delete_prefix(self, prefix: str) -> None:
        with _usable(self._root):
            shutil.rmtree(self._folder(prefix.rstrip("/")), ignore_errors=True)

    def get_url(self, key: str, content_type: str) -> str:
        expires = str(int(time.time()) + URL_EXPIRES)
        signed = {"type": content_type, "expires": expires}
        signed["signature"] = self._sign("GET", key, content_type, expires)
        return f"{self._base_url}/v1/blobs/{quote(key)}?{urlencode(signed)}"

    def open_signed(self, method: str, key: str, content_type: str, expires: str, signature: str) -> Found:
        """What a signed URL leads to. Raises BadSignature and BlobMissing."""
        if not hmac.compare_digest(self._sign(method, key, content_type, expires).encode(), signature.encode()):
            raise BadSignature("the URL's signature is not valid")
        if int(expires) < time.time():
            raise BadSignature("the URL has expired; ask for the job's result again")
        path = self._path(key)
        if not path.is_file():
            raise BlobMissing("the blob is gone")
        return Found(path, content_type)

    def check(self) -> None:
        with _usable(self._root), tempfile.TemporaryFile(dir=self._root):
            pass

    def _sign(self, method: str, key: str, content_type: str, expires: str) -> str:
        text = json.dumps([method, key, content_type, expires])
        return hmac.new(self._secret, text.encode(), "sha256").hexdigest()

    def _folder(self, prefix: str) -> Path:
        parts = prefix.split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in parts):
            raise BlobMissing(f"no blob {prefix}")
        return self._root.joinpath(*parts)

    def _path(self, key: str) -> Path:
        folder, _, name = key.rpartition("/")
        return self._folder(folder) / sha256(name.encode()).hexdigest()


class S3(Blobs):
    """A bucket, by boto3. Credentials and region come from where boto3 looks for them."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str = "") -> None:
        import boto3
        from botocore.config import Config

        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint_url or None,
            config=Config(
                signature_version="s3v4",  # the default here gave version 2, which binds neither length nor checksum
                connect_timeout=3,
                read_timeout=30,
                retries={"mode": "standard", "max_attempts": 3},
                max_pool_connections=32,
                s3={"addressing_style": "path" if endpoint_url else "auto"},
            ),
        )

    def put(self, key: str, body: bytes, content_type: str) -> None:
        with self._answers(key):
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + key,
                Body=body,
                ContentType=content_type or "binary/octet-stream",
            )

    def get(self, key: str) -> bytes:
        with self._answers(key):
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
            return body

    def copy(self, key: str, to: str, content_type: str) -> None:
        with self._answers(key):
            self._client.copy_object(
                Bucket=self._bucket,
                Key=self._prefix + to,
                CopySource={"Bucket": self._bucket, "Key": self._prefix + key},
                ContentType=content_type or "binary/octet-stream",
                MetadataDirective="REPLACE",
            )

    def delete_prefix(self, prefix: str) -> None:
        with self._answers(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                if found := [{"Key": each["Key"]} for each in page.get("Contents", ())]:
                    self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": found, "Quiet": True})

    def get_url(self, key: str, content_type: str) -> str:
        asked = {"Bucket": self._bucket, "Key": self._prefix + key, "ResponseContentType": content_type}
        url: str = self._client.generate_presigned_url("get_object", Params=asked, ExpiresIn=URL_EXPIRES)
        return url

    def check(self) -> None:
        with self._answers("the bucket"):
            self._client.head_bucket(Bucket=self._bucket)

    @contextmanager
    def _answers(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.exceptions import HTTPClientError as BrokenAnswer

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404") and key != "the bucket":
                raise BlobMissing(f"no blob {key}") from error
            raise BlobUnavailable(f"S3 refused {key} in bucket {self._bucket}: {error}") from error
        except (BotoCoreError, BrokenAnswer, OSError) as error:
            raise BlobUnavailable(f"S3 does not answer for bucket {self._bucket}: {error}") from error


def open_blobs(settings: Settings) -> Directory | S3:
    """The store of TUNDISH_BLOB_URL. Raises SettingError."""
    url = urlsplit(settings.blob_url)
    if url.scheme == "file" and not url.netloc and url.path:
        # Without any secret the API serves loopback alone, and a URL holds as long as its process.
        secret = (settings.secret or settings.api_key).encode() or os.urandom(32)
        return Directory(Path(url.path), sha256(b"tundish blobs" + secret).digest(), settings.public_url)
    if url.scheme == "s3" and url.netloc:
        return S3(url.netloc, url.path.strip("/"), settings.s3_endpoint_url)
    raise SettingError(f"TUNDISH_BLOB_URL is {settings.blob_url!r}; set it to file:///directory or s3://bucket/prefix")


@contextmanager
def _usable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BlobUnavailable(f"the blob directory {root} cannot be used: {error.strerror or error}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
