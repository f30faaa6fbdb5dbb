"""Blobs in a directory, and which store a URL names."""

import asyncio
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import pytest
from starlette.requests import Request
from starlette.types import Message, Scope

from api.blobs import BlobFiles
from api.parts import Parts
from tundish.blobs import (
    BadSignature,
    BlobChanged,
    BlobMissing,
    BlobRefused,
    BlobTooLarge,
    BlobUnavailable,
    Directory,
    job_prefix,
    key,
    open_blobs,
    upload_key,
)
from tundish.ids import new_uuid, to_text
from tundish.settings import SettingError, Settings


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "blobs", b"secret")


def test_a_blob_is_kept_under_its_key(directory: Directory) -> None:
    job = new_uuid()
    name = key(1, job, 2, "output")
    assert name.split("/")[2:] == [to_text("job", job), "2", "output"]
    directory.put(name, b"\0body", "image/png")
    directory.put(name, b"\0body", "image/png")
    assert directory.get(name) == b"\0body"
    directory.delete_prefix(job_prefix(1, job))
    directory.delete_prefix(job_prefix(1, job))
    with pytest.raises(BlobMissing):
        directory.get(name)


def test_a_blob_and_the_folders_that_it_takes_are_durable(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(os.readlink(f"/proc/self/fd/{file}"))))
    directory.put("1/day/job/1/output", b"body", "image/png")
    root = directory._root
    *above, part, folder = synced
    assert above == [root / "1/day/job", root / "1/day", root / "1", root, root.parent]
    assert part.parent == folder == root / "1/day/job/1"
    synced.clear()
    directory.put("1/day/job/2/output", b"body", "image/png")
    assert [synced[0], synced[2]] == [root / "1/day/job", root / "1/day/job/2"]
    synced.clear()
    directory.copy("1/day/job/2/output", "1/uploads/upload/body", "image/png")
    assert synced == [root / "1/uploads", root / "1", root / "1/uploads/upload"]


def test_a_day_that_another_has_made_and_not_synced_yet_is_durable_too(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.put("1/today/job_a/0/input", b"body", "image/png")
    (directory._root / "1/tomorrow").mkdir()
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(os.readlink(f"/proc/self/fd/{file}"))))
    for times, job in ((1, "job_b"), (0, "job_c")):
        directory.put(f"1/tomorrow/{job}/0/input", b"body", "image/png")
        assert synced.count(directory._root / "1") == times
        synced.clear()


def test_what_cannot_be_deleted_is_told_and_what_is_gone_is_not(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_uuid()
    directory.put(key(1, job, 0, "input"), b"body", "image/png")
    delete, others = shutil.rmtree, [FileNotFoundError, PermissionError]

    def beaten(folder: Path) -> None:
        if others:
            raise others.pop(0)
        delete(folder)

    monkeypatch.setattr(shutil, "rmtree", beaten)
    with pytest.raises(BlobUnavailable):
        directory.delete_prefix(job_prefix(1, job))
    assert directory.get(key(1, job, 0, "input"))
    directory.delete_prefix(job_prefix(1, job))
    with pytest.raises(BlobMissing):
        directory.get(key(1, job, 0, "input"))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a//b", "a\0/b", ""])
def test_no_key_leads_out_of_the_folder(directory: Directory, tmp_path: Path, name: str) -> None:
    with pytest.raises(BlobMissing):
        directory.put(name, b"x", "text/plain")
    assert not list(tmp_path.rglob("*"))[1:]


def test_a_signed_url_opens_one_blob_for_a_while(directory: Directory) -> None:
    name = key(1, new_uuid(), 1, "output")
    directory.put(name, b"body", "text/plain")
    url = urlsplit(directory.get_url(name, "text/plain"))
    given = {name: values[0] for name, values in parse_qs(url.query).items()}
    path = unquote(url.path).removeprefix("/v1/blobs/")
    with directory.open_signed(path, given).file as file:
        assert file.read() == b"body"
    for other, change in (
        (path.replace("/1/output", "/2/output"), {}),
        (path, {"expires": "99999999999"}),
        (path, {"type": "text/html"}),
        (path, {"signature": "é"}),
    ):
        with pytest.raises(BadSignature):
            directory.open_signed(other, {**given, **change})
    with pytest.raises(BadSignature):
        directory.receive(path, given)
    signature = directory._sign("GET", path, "text/plain", "1000")
    with pytest.raises(BadSignature, match="expired"):
        directory.open_signed(path, {"type": "text/plain", "expires": "1000", "signature": signature})


@pytest.mark.parametrize(
    ("method", "range", "piece"),
    [("GET", "", b"body"), ("GET", "bytes=1-2", b"od"), ("GET", "bytes=0-0,2-2", b"\r\n\r\nd\r\n"), ("HEAD", "", b"")],
    ids=["all of it", "a part", "two parts", "its head"],
)
def test_a_blob_that_is_deleted_as_it_is_served_is_served_as_it_was(
    directory: Directory, method: str, range: str, piece: bytes
) -> None:
    job = new_uuid()
    name = key(1, job, 1, "output")
    directory.put(name, b"body", "text/plain")
    scope: Scope = {
        "type": "http",
        "method": method,
        "query_string": urlsplit(directory.get_url(name, "text/plain")).query.encode(),
        "headers": [(b"range", range.encode())] if range else [],
        "path_params": {"key": name},
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return await asyncio.Future[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    async def serve() -> None:
        answer = await BlobFiles(cast(Parts, SimpleNamespace(blobs=directory))).get(Request(scope))
        directory.delete_prefix(job_prefix(1, job))
        await answer(scope, receive, send)

    asyncio.run(serve())
    begun, *rest = sent
    assert begun["status"] == (206 if range else 200)
    body = b"".join(each["body"] for each in rest)
    assert piece in body
    assert method == "HEAD" or dict(begun["headers"])[b"content-length"] == b"%d" % len(body)


def test_a_signed_put_takes_what_it_was_made_for(directory: Directory, tmp_path: Path) -> None:
    name = upload_key(1, new_uuid())
    signed = directory.put_url(name, "image/png", 4, sha256(b"body").hexdigest(), 60)
    given = dict(parse_qsl(urlsplit(signed.url).query))
    for pieces, fault in (((b"bo", b"dyx"), BlobTooLarge), ((b"bo", b"d"), BlobRefused), ((b"bodY",), BlobRefused)):
        with pytest.raises(fault):
            receive(directory, name, given, *pieces)
        with pytest.raises(BlobMissing):
            directory.stat(name)
    receive(directory, name, given, b"bo", b"dy")
    assert directory.get(name) == b"body"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
    with pytest.raises(BadSignature):
        directory.open_signed(name, given)
    for change in ({"size": "5"}, {"sha256": ""}, {"type": "text/html"}, {"expires": "99999999999"}):
        with pytest.raises(BadSignature, match="not valid"):
            directory.receive(name, {**given, **change})
    expired = directory.put_url(name, "image/png", 4, None, -1)
    with pytest.raises(BadSignature, match="expired"):
        directory.receive(name, dict(parse_qsl(urlsplit(expired.url).query, keep_blank_values=True)))


def receive(directory: Directory, name: str, given: dict[str, str], *pieces: bytes) -> None:
    arrival = directory.receive(name, given)
    try:
        for piece in pieces:
            arrival.write(piece)
        arrival.keep()
    finally:
        arrival.discard()


def test_a_copy_is_of_what_was_pinned(directory: Directory) -> None:
    name, first, second = (key(1, new_uuid(), 0, "input") for _ in range(3))
    directory.put(name, b"body", "text/plain")
    pinned = directory.stat(name).etag
    directory.copy(name, first, "text/plain", pinned)
    directory.put(name, b"bodY", "text/plain")
    assert directory.get(first, pinned) == b"body"
    for call in (lambda: directory.copy(name, second, "text/plain", pinned), lambda: directory.get(name, pinned)):
        with pytest.raises(BlobChanged):
            call()
    with pytest.raises(BlobMissing):
        directory.stat(second)  # nobody would delete what nobody asked for
    with pytest.raises(BlobMissing):
        directory.copy(key(1, new_uuid(), 0, "input"), second, "text/plain")


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BlobUnavailable, match="blob directory"):
        Directory(tmp_path / "file", b"s").put("1/2/3", b"x", "text/plain")
    with pytest.raises(BlobUnavailable):
        Directory(tmp_path / "none", b"s").check()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="it is a file that opens, and cannot be read, on Linux")
def test_a_blob_that_opens_and_cannot_be_read_is_no_fault_of_who_reads_it(directory: Directory) -> None:
    name = upload_key(1, new_uuid())
    path = directory._path(name)
    path.parent.mkdir(parents=True)
    path.symlink_to("/proc/self/mem")
    with pytest.raises(BlobUnavailable, match=r"blob directory .* cannot be used: Input/output error"):
        directory.get(name)
    with directory.reading(name) as file, pytest.raises(BlobUnavailable):
        file.read(10)


def test_a_signed_put_may_lose_what_is_empty_in_its_query(directory: Directory) -> None:
    name = upload_key(1, new_uuid())
    signed = directory.put_url(name, "image/png", 4, None, 60)
    receive(directory, name, dict(parse_qsl(urlsplit(signed.url).query)), b"body")
    assert directory.get(name) == b"body"


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files take 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_of_what_a_full_disk_does_not_take_nothing_stays(directory: Directory, tmp_path: Path) -> None:
    name, size = upload_key(1, new_uuid()), 5000
    with pytest.raises(BlobUnavailable):
        directory.put(name, bytes(size), "image/png")
    signed = directory.put_url(name, "image/png", size, None, 60)
    with pytest.raises(BlobUnavailable, match=f"{tmp_path}/.* cannot be used"):
        receive(directory, name, dict(parse_qsl(urlsplit(signed.url).query, keep_blank_values=True)), bytes(size))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_blobs_lie_private_and_whole(directory: Directory, tmp_path: Path) -> None:
    directory.put("1/2/3", b"x", "text/plain")
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


@pytest.mark.parametrize("url", ["", "ftp://x", "file://host/dir", "s3:///prefix", "/dir", "s3://[x"])
def test_a_blob_url_that_is_none(url: str) -> None:
    with pytest.raises(SettingError, match="TUNDISH_BLOB_URL"):
        open_blobs(Settings(blob_url=url))


@pytest.mark.parametrize("name", ["plain", "a#1", "a?", "a%20b", "ä b"])
def test_the_blobs_of_dev_up_lie_in_its_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    embedded = Settings(data_dir=tmp_path / name).embedded()
    open_blobs(embedded).put("1/2/3", b"x", "text/plain")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in (tmp_path / name).iterdir()] == ["blobs"]
