"""Blobs in S3, against a real server of the protocol."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.s3 import ENVIRONMENT, Server
from tundish.blobs import S3, BlobMissing, BlobUnavailable, job_prefix, key, open_blobs
from tundish.ids import new_uuid
from tundish.settings import Settings


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def blobs(server: Server) -> S3:
    blobs = open_blobs(Settings(blob_url="s3://bucket/some/prefix", s3_endpoint_url=server.url))
    assert isinstance(blobs, S3)
    return blobs


def test_blobs_are_kept_and_deleted_by_prefix(blobs: S3) -> None:
    job, other = new_uuid(), new_uuid()
    for each, attempt, name in ((job, 0, "input"), (job, 1, "output"), (other, 1, "output")):
        blobs.put(key(1, each, attempt, name), name.encode() * 100_000, "application/json")
    assert blobs.get(key(1, job, 1, "output")) == b"output" * 100_000
    blobs.check()
    blobs.delete_prefix(job_prefix(1, job))
    blobs.delete_prefix(job_prefix(1, job))
    for attempt, name in ((0, "input"), (1, "output")):
        with pytest.raises(BlobMissing):
            blobs.get(key(1, job, attempt, name))
    assert blobs.get(key(1, other, 1, "output"))


def test_a_presigned_url_serves_one_blob(blobs: S3) -> None:
    name = key(1, new_uuid(), 1, "output")
    blobs.put(name, b"body", "text/plain")
    url = blobs.get_url(name, "text/plain")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert httpx.get(url, trust_env=False).content == b"body"
    assert httpx.get(url.replace("/output", "/other"), trust_env=False).status_code >= 400
    assert httpx.get(url.partition("?")[0], trust_env=False).status_code >= 400


def test_a_server_that_is_gone_or_refuses_is_told_from_a_missing_blob(
    server: Server, blobs: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = open_blobs(Settings(blob_url="s3://nothing", s3_endpoint_url=server.url))
    with pytest.raises(BlobUnavailable, match="nothing"):
        elsewhere.check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(BlobUnavailable, match="refused"):
        open_blobs(Settings(blob_url="s3://bucket", s3_endpoint_url=server.url)).put("1/2/3", b"x", "text/plain")
    server.kill()
    for call in (lambda: blobs.get("1/2/3"), lambda: blobs.put("1/2/3", b"x", "text/plain"), blobs.check):
        with pytest.raises(BlobUnavailable, match="does not answer"):
            call()
