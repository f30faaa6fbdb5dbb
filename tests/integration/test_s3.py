"""Blobs in S3, against a real server of the protocol."""

import io
import socket
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from botocore.stub import Stubber

from tests.integration.origin import serving
from tests.s3 import ENVIRONMENT, Server
from tundish.blobs import (
    BlobChanged,
    BlobMissing,
    BlobOversized,
    Blobs,
    BlobUnavailable,
    job_prefix,
    key,
    open_blobs,
    upload_key,
)
from tundish.blobs.s3 import S3
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


def test_a_store_that_can_be_read_is_probed(blobs: S3) -> None:
    for _ in range(2):
        blobs.probe("1/20261130/job/0/input")
    blobs.delete_prefix("1/20261130/")
    with pytest.raises(BlobMissing):
        blobs.stat("1/20261130/probe")


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


def test_what_s3_refuses_to_delete_within_an_answer_of_200_is_told(blobs: S3) -> None:
    with Stubber(blobs._client) as stub:
        stub.add_response("list_objects_v2", {"Contents": [{"Key": "a"}, {"Key": "b"}]})
        stub.add_response("delete_objects", {"Errors": [{"Key": "b", "Code": "AccessDenied"}]})
        with pytest.raises(BlobUnavailable, match=r"keeps 1 of 2 objects .* AccessDenied for b"):
            blobs.delete_prefix("p/")


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
    for call in (
        lambda: blobs.get("1/2/3"),
        lambda: blobs.put("1/2/3", b"x", "text/plain"),
        blobs.check,
        lambda: blobs.probe("1/2/3"),
    ):
        with pytest.raises(BlobUnavailable, match="does not answer"):
            call()


@pytest.mark.parametrize(
    "said", ["<html>413 Request Entity Too Large</html>", "<Error><Code>EntityTooLarge</Code></Error>"]
)
def test_what_is_too_large_for_the_store_or_a_proxy_before_it_is_told(
    said: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(peer: socket.socket, head: str) -> None:
        status = "413 Request Entity Too Large" if "html" in said else "400 Bad Request"
        peer.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(said)}\r\nConnection: close\r\n\r\n{said}".encode())
        while peer.recv(65536):  # a close with bytes unread would be a reset
            pass

    with serving(refuse) as url:
        blobs = open_blobs(Settings(blob_url="s3://bucket", s3_endpoint_url=url))
        with pytest.raises(BlobOversized, match="bucket takes no blob of that size"):
            blobs.put("1/2/3", BODY, "text/plain")
        with pytest.raises(BlobOversized):
            blobs.put_file("1/2/3", io.BytesIO(BODY), "text/plain")


BODY = b"\0\xff" * 6_000_000  # over the size of one part


def test_a_large_blob_goes_in_and_out_as_a_file(blobs: Blobs, tmp_path: Path) -> None:
    name = key(1, new_uuid(), 1, "output")
    (tmp_path / "file").write_bytes(BODY * 2)
    with (tmp_path / "file").open("rb") as file:
        blobs.put_file(name, file, "image/png")
    found = blobs.stat(name)
    assert found.size == 2 * len(BODY)
    with blobs.reading(name, found.etag) as source:
        assert source.read(10) == BODY[:10]
        assert source.read() == (BODY * 2)[10:]
    with httpx.stream("GET", blobs.get_url(name, "image/png"), trust_env=False) as answer:
        assert answer.headers["content-type"] == "image/png"
    for call in (lambda: blobs.stat("1/2/3"), lambda: blobs.get("1/2/3"), lambda: blobs.copy("1/2/3", "1/2/4", "")):
        with pytest.raises(BlobMissing):
            call()


def test_what_is_overwritten_is_told_from_what_was_pinned(blobs: Blobs) -> None:
    name, other = upload_key(1, new_uuid()), key(1, new_uuid(), 0, "input")
    blobs.put(name, b"first", "text/plain")
    pinned = blobs.stat(name).etag
    blobs.copy(name, other, "text/plain", pinned)
    blobs.put(name, b"other", "text/plain")
    for call in (lambda: blobs.get(name, pinned), lambda: blobs.copy(name, other, "text/plain", pinned)):
        with pytest.raises(BlobChanged):
            call()
    assert (blobs.get(other), blobs.get(name)) == (b"first", b"other")


def test_a_signed_put_binds_type_size_and_checksum(blobs: Blobs) -> None:
    name, sum = upload_key(1, new_uuid()), sha256(b"body").hexdigest()
    url, headers = blobs.put_url(name, "image/png", 4, sum, 900)
    for body, change in (
        (b"body+", {"Content-Length": "5"}),
        (b"bod", {"Content-Length": "3"}),
        (b"body", {"Content-Type": "text/html"}),
        (b"body", {"x-amz-checksum-sha256": "0000"}),
    ):
        assert httpx.put(url, content=body, headers={**headers, **change}, trust_env=False).status_code == 403
    for old, new in (("Expires=900", "Expires=90000"), ("/uploads/", "/20200101/")):
        assert httpx.put(url.replace(old, new), content=b"body", headers=headers, trust_env=False).status_code == 403
    with pytest.raises(BlobMissing):
        blobs.stat(name)
    assert httpx.put(url, content=b"body", headers=headers, trust_env=False).status_code == 200
    assert blobs.holds_to(name, sum)
    assert blobs.get(name) == b"body"


def test_bytes_that_have_not_their_checksum_are_not_read(blobs: Blobs) -> None:
    """This server keeps the checksum of a PUT and does not look at it, as AWS does."""
    name = upload_key(1, new_uuid())
    url, headers = blobs.put_url(name, "image/png", 4, sha256(b"body").hexdigest(), 900)
    assert httpx.put(url, content=b"bodY", headers=headers, trust_env=False).status_code == 200
    assert blobs.holds_to(name, sha256(b"body").hexdigest())
    with pytest.raises(BlobChanged, match="checksum"):
        blobs.get(name, blobs.stat(name).etag)
    url, headers = blobs.put_url(name, "image/png", 4, None, 900)
    assert httpx.put(url, content=b"bodY", headers=headers, trust_env=False).status_code == 200
    assert not blobs.holds_to(name, sha256(b"bodY").hexdigest())


def test_a_server_that_ends_within_a_blob_is_unavailable(server: Server, blobs: Blobs) -> None:
    name = upload_key(1, new_uuid())
    with tempfile.TemporaryFile() as file:
        file.truncate(64 * 2**20)
        blobs.put_file(name, file, "image/png")
    with blobs.reading(name) as source:
        assert len(source.read(10)) == 10
        server.kill()
        with pytest.raises(BlobUnavailable, match="does not answer"):
            source.read()
