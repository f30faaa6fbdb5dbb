"""Blobs in a bucket that speaks S3, by boto3."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, BinaryIO

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
from botocore.exceptions import HTTPClientError as BrokenAnswer

from tundish.blobs.interface import (
    CHUNK,
    URL_EXPIRES,
    BlobChanged,
    BlobMissing,
    BlobOversized,
    Blobs,
    BlobUnavailable,
    SignedPut,
    Stat,
    guarded,
    pinned,
)

_OCTETS = "binary/octet-stream"
#: One part at a time: threads would hold ten of them.
_PARTS = TransferConfig(multipart_threshold=16 * CHUNK, multipart_chunksize=8 * CHUNK, use_threads=False)


class S3(Blobs):
    """Credentials and region come from where boto3 looks for them."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint_url = endpoint_url
        self._client = self._connected()

    @cached_property
    def _unchecked(self) -> Any:
        """For a part of a blob: some stores send the checksum of the whole along."""
        return self._connected(response_checksum_validation="when_required")

    def _connected(self, **more: Any) -> Any:
        config = Config(
            signature_version="s3v4",  # the default here gave version 2, which binds neither length nor checksum
            connect_timeout=3,
            read_timeout=30,
            retries={"mode": "standard", "max_attempts": 3},
            max_pool_connections=64,
            s3={"addressing_style": "path" if self._endpoint_url else "auto"},
            **more,
        )
        return boto3.session.Session().client("s3", endpoint_url=self._endpoint_url or None, config=config)

    def put(self, key: str, body: bytes, content_type: str) -> None:
        with self._answers(key):
            self._client.put_object(**self._at(key), Body=body, ContentType=content_type or _OCTETS)

    def put_file(self, key: str, file: BinaryIO, content_type: str) -> None:
        with self._answers(key):
            type = {"ContentType": content_type or _OCTETS}
            self._client.upload_fileobj(file, **self._at(key), ExtraArgs=type, Config=_PARTS)

    @contextmanager
    def reading(self, key: str, etag: str | None = None, at: int = 0) -> Iterator[BinaryIO]:
        client = self._unchecked if at else self._client
        asked = ({"IfMatch": etag} if etag else {}) | ({"Range": f"bytes={at}-"} if at else {})
        with self._answers(key):
            found = client.get_object(**self._at(key), **asked)
        with guarded(found["Body"], partial(self._answers, key)) as file:
            pinned(key, found["ETag"], etag)  # not every store heeds If-Match
            yield file

    def stat(self, key: str) -> Stat:
        with self._answers(key):
            found = self._client.head_object(**self._at(key))
        return Stat(found["ContentLength"], found["ETag"])

    def copy(self, key: str, to: str, content_type: str, etag: str | None = None) -> None:
        if etag:
            pinned(key, self.stat(key).etag, etag)
        with self._answers(key):
            self._client.copy_object(
                **self._at(to),
                CopySource=self._at(key),
                ContentType=content_type or _OCTETS,
                MetadataDirective="REPLACE",
                **({"CopySourceIfMatch": etag} if etag else {}),
            )

    def delete_prefix(self, prefix: str) -> None:
        with self._answers(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                if found := [{"Key": each["Key"]} for each in page.get("Contents", ())]:
                    asked = {"Objects": found, "Quiet": True}
                    left = self._client.delete_objects(Bucket=self._bucket, Delete=asked).get("Errors", ())
                    if left:  # in an answer that says 200
                        raise BlobUnavailable(
                            f"S3 keeps {len(left)} of {len(found)} objects under {prefix} in bucket {self._bucket}:"
                            f" {left[0].get('Code')} for {left[0].get('Key')}"
                        )

    def get_url(self, key: str, content_type: str) -> str:
        return self._signed("get_object", {**self._at(key), "ResponseContentType": content_type}, URL_EXPIRES)

    def put_url(self, key: str, content_type: str, size: int, sha256: str | None, expires_in: int) -> SignedPut:
        asked = {**self._at(key), "ContentType": content_type, "ContentLength": size}
        headers = {"Content-Type": content_type, "Content-Length": str(size)}
        if sha256:
            headers["x-amz-checksum-sha256"] = asked["ChecksumSHA256"] = _base64(sha256)
        return SignedPut(self._signed("put_object", asked, expires_in), headers)

    def holds_to(self, key: str, sha256: str) -> bool:
        """AWS refuses other bytes as they arrive. A store that only keeps the checksum sends it along with the bytes,
        and they are checked as they are read."""
        with self._answers(key):
            found = self._client.head_object(**self._at(key), ChecksumMode="ENABLED")
        return bool(found.get("ChecksumSHA256") == _base64(sha256))

    def check(self) -> None:
        with self._answers("the bucket"):
            self._client.head_bucket(Bucket=self._bucket)

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _signed(self, call: str, asked: dict[str, Any], expires_in: int) -> str:
        url: str = self._client.generate_presigned_url(call, Params=asked, ExpiresIn=expires_in)
        return url

    @contextmanager
    def _answers(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404") and key != "the bucket":
                raise BlobMissing(f"no blob {key}") from error
            if code in ("PreconditionFailed", "412"):
                raise BlobChanged(f"the blob {key} was overwritten") from error
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code == "EntityTooLarge" or status == 413:  # which a proxy says in HTML
                raise BlobOversized(f"bucket {self._bucket} takes no blob of that size: {error}") from error
            raise BlobUnavailable(f"S3 refused {key} in bucket {self._bucket}: {error}") from error
        except FlexibleChecksumError as error:
            raise BlobChanged(f"the blob {key} has not the checksum that it was put with") from error
        except (BotoCoreError, Boto3Error, BrokenAnswer, OSError) as error:
            raise BlobUnavailable(f"S3 does not answer for bucket {self._bucket}: {error}") from error


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
