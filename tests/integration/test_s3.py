"""Blobs in S3, against a real server of the protocol (rclone): it checks signatures, and can be killed."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.local import free_port, wait_until
from tundish.blobs import S3, BlobMissing, BlobUnavailable, job_prefix, key, open_blobs
from tundish.ids import new_uuid
from tundish.settings import Settings

KEY, SECRET = "access", "very-secret"


class Server:
    def __init__(self, folder: Path) -> None:
        (folder / "bucket").mkdir()
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
        self.process = subprocess.Popen(
            [program, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}",
             "--config", str(folder / "none"), "--vfs-cache-mode", "off", "-q"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._answers, "the S3 server answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url, trust_env=False).status_code > 0
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
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
