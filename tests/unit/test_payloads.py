"""Payloads as a worker handles them: fetched to files, pinned, bounded by the disk, and removed."""

import errno
import fcntl
import os
import shutil
import tempfile
import threading
from collections import namedtuple
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.models import Echo, Inverted, Made, Octets, Wish
from tests.shelves import NO_ARTIFACTS
from tundish import execute
from tundish.blobs import BlobUnavailable, Directory, upload_key
from tundish.catalog import Served
from tundish.codec import EncodeError, codec_for
from tundish.execute import encoded
from tundish.file import File
from tundish.ids import new_uuid
from tundish.job import Code
from tundish.outcome import Done, Failed, Item
from tundish.runtime import Runtime
from tundish.store import ClaimedJob
from workers.batch import Target
from workers.claim import Claim
from workers.entry import Entry
from workers.folders import Folders
from workers.load import load, warm_up
from workers.patience import Patience
from workers.prepare import Prepared, prepare

BODY = b"\0\xff" * 1000
UPLOAD = upload_key(1, new_uuid())


@pytest.fixture
def blobs(tmp_path: Path) -> Directory:
    blobs = Directory(tmp_path / "blobs", b"secret")
    blobs.put(UPLOAD, BODY, "image/png")
    return blobs


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files go: a folder of the test."""
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    return disk


def job(**given: Any) -> ClaimedJob:
    fields = dict.fromkeys(ClaimedJob._fields) | {"tenant": 1, "attempt": 1, "deaths": 0, "content_type": "image/png"}
    return ClaimedJob(**{**fields, "id": new_uuid(), "size": len(BODY), **given})


def prepared(model: Any, blobs: Directory, *jobs: ClaimedJob) -> Prepared:
    target = Target(model.name, model.version)
    return prepare(
        Entry.of(Served(model)).loaded, Claim(new_uuid(), target, jobs), blobs, Patience(), timeout=1.0, max_body=1
    )


def full(*_: object, **__: object) -> None:
    """A disk that has room for nothing."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("source", ["row", "blob"])
def test_an_input_lies_in_a_file_while_its_batch_is_held(blobs: Directory, disk: Path, source: str) -> None:
    given = {"body": BODY} if source == "row" else {"blob": UPLOAD, "etag": blobs.stat(UPLOAD).etag}
    batch = prepared(Inverted, blobs, job(**given))
    [file] = batch.inputs
    assert isinstance(file, File)
    assert (file.path.read_bytes(), file.content_type) == (BODY, "image/png")
    assert disk in file.path.parents
    del batch
    assert not file.path.exists()


def test_an_input_that_memory_does_not_hold_fails_alone(blobs: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = job(blob=UPLOAD, etag=blobs.stat(UPLOAD).etag), job(body=BODY)

    def read(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(blobs, "get", read)
    failed, read_well = prepared(Octets, blobs, large, small).inputs
    assert isinstance(failed, Failed)
    assert failed.code == "out_of_memory"
    assert read_well == BODY


def test_a_store_that_gives_nothing_is_waited_for_though_it_answers(
    blobs: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose rights to read were taken away: no input is to blame."""
    monkeypatch.setattr("workers.patience.PATIENCE", 0.0)
    read = Directory.reading

    def refuse(*_: object) -> Any:
        raise BlobUnavailable("access denied")

    claim = Claim(new_uuid(), Target("octets", "1"), [job(blob=UPLOAD, etag=blobs.stat(UPLOAD).etag)])
    call = partial(prepare, Entry.of(Served(Octets)).loaded, claim, blobs, Patience(), timeout=1.0, max_body=1)
    monkeypatch.setattr(Directory, "reading", refuse)
    blobs.check()
    for _ in range(2):
        with pytest.raises(BlobUnavailable):
            call()
    monkeypatch.setattr(Directory, "reading", read)
    assert call().inputs == [BODY]


@pytest.mark.parametrize("model", [Inverted, Octets])
def test_what_was_overwritten_or_is_gone_fails_alone(blobs: Directory, model: Any) -> None:
    pinned = blobs.stat(UPLOAD).etag
    there, gone = job(body=BODY), job(blob=upload_key(1, new_uuid()), etag=pinned)
    overwritten = job(blob=UPLOAD, etag=pinned)
    [before] = prepared(model, blobs, overwritten).inputs
    assert not isinstance(before, Failed)
    blobs.put(UPLOAD, BODY, "image/png")
    first, *others = prepared(model, blobs, there, gone, overwritten).inputs
    assert not isinstance(first, Failed)
    assert [each.code for each in others] == [Code.INPUT_UNAVAILABLE] * 2
    assert "no longer" in others[0].message
    assert "overwritten" in others[1].message


@pytest.mark.parametrize(
    ("max_body", "given", "looked_at"), [(100, {}, False), (9, {}, True), (100, {"input_url": "x"}, True)]
)
def test_what_no_submit_has_seen_is_checked(
    blobs: Directory, max_body: int, given: dict[str, str], looked_at: bool
) -> None:
    """A larger body comes by an upload."""
    twice = job(body=b'{"value": 1, "value": 2}', content_type="application/json", **given)
    claim = Claim(new_uuid(), Target("echo", "1"), [twice])
    [found] = prepare(Entry.of(Served(Echo)).loaded, claim, blobs, Patience(), timeout=1.0, max_body=max_body).inputs
    assert isinstance(found, Failed) == looked_at
    assert not looked_at or (found.code, "value" in found.message) == (Code.INVALID_INPUT, True)


def test_a_predict_takes_its_jobs_time_out_else_its_models_else_the_workers(blobs: Directory) -> None:
    class Patient(Octets):
        timeout = 7.0

    jobs = job(body=BODY, timeout=3.0), job(body=BODY)
    assert [item.timeout for item in prepared(Patient, blobs, *jobs).items] == [3.0, 7.0]
    assert [item.timeout for item in prepared(Octets, blobs, *jobs).items] == [3.0, 1.0]


def test_an_input_that_the_disk_does_not_hold_fails_alone(blobs: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 100 * 2**20))
    fits, too_large = prepared(Inverted, blobs, job(body=BODY), job(body=BODY, size=50 * 2**20)).inputs
    assert isinstance(fits, File)
    assert too_large.code == Code.INPUT_UNAVAILABLE
    assert "TMPDIR" in too_large.message


@pytest.mark.parametrize("model", [Inverted, Made])
def test_a_batch_that_the_disk_takes_no_folder_for_fails(
    blobs: Directory, monkeypatch: pytest.MonkeyPatch, model: Any
) -> None:
    loaded, batch = Entry.of(Served(model)).loaded, Claim(new_uuid(), Target("m", "1"), [job(body=b"{}")] * 2)
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    found = prepare(loaded, batch, blobs, Patience(), timeout=1.0, max_body=1)
    assert found.folder is None
    assert [each.code for each in found.inputs] == [Code.INPUT_UNAVAILABLE] * 2
    assert "No space left" in found.inputs[0].message


def test_inputs_in_blobs_are_read_several_at_once(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    class Slow(Directory):
        def get(self, key: str, etag: str | None = None) -> bytes:
            both.wait(10)
            return super().get(key, etag)

    blobs = Slow(tmp_path / "blobs", b"secret")
    blobs.put(UPLOAD, BODY, "image/png")
    first, second, third = job(blob=UPLOAD), job(body=b"here"), job(blob=UPLOAD)
    assert prepared(Octets, blobs, first, second, third).inputs == [BODY, b"here", BODY]


def test_an_input_whose_folder_is_gone_fails_alone(blobs: Directory) -> None:
    loaded = Entry.of(Served(Inverted)).loaded
    assert loaded.folders
    folder = loaded.folders.new()
    folder.path.rmdir()
    batch = Claim(new_uuid(), Target("m", "1"), [job(body=BODY)], folder=folder)
    [failed] = prepare(loaded, batch, blobs, Patience(), timeout=1.0, max_body=1).inputs
    assert failed.code == Code.INPUT_UNAVAILABLE


def test_what_a_kill_left_is_swept_and_what_lives_is_not(disk: Path) -> None:
    live = Folders()
    kept = live.new()
    for name in ("tundish-files-dead", "tundish-files-locked", "others"):
        (disk / name).mkdir()
        (disk / name / "file").touch()
    lock = os.open(disk / "tundish-files-locked", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    Folders()
    os.close(lock)
    assert kept.path.is_dir()
    assert {path.name for path in disk.iterdir()} >= {"tundish-files-locked", "others"}
    assert not (disk / "tundish-files-dead").exists()


def test_a_model_of_files_is_warmed_up(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = Entry.of(Served(type("Warm", (Made,), {"example": Wish(10)})))
    entry.loaded.model = load(entry.served, "cpu", NO_ARTIFACTS)
    warm_up(entry.loaded, "cpu")
    assert caplog.records == []
    assert list(disk.rglob("batch-*")) == []


def test_a_model_of_files_runs_with_no_service(tmp_path: Path) -> None:
    from tundish.testing import run

    source = tmp_path / "source"
    source.write_bytes(BODY)
    [output] = run(Inverted, [File(source, "image/png")], folder=tmp_path)
    assert isinstance(output, File)
    assert (output.path.read_bytes(), output.content_type) == (b"\xff\0" * 1000, "image/png")
    assert output.path.parent == tmp_path


def test_a_file_has_a_path_of_any_kind_and_a_media_type(tmp_path: Path) -> None:
    source, writes = tmp_path / "source", codec_for(File)
    source.write_bytes(BODY)
    path: Any = str(source)
    assert encoded(writes, File(path, "image/png")) == Done(File(source, "image/png"), "image/png")
    for type in ("text/plain\r\nX-A: b", "text/\u65e5\u672c", "text", "", 5, b"text/plain", "a/" + "b" * 300):
        with pytest.raises(EncodeError, match="not a media type"):
            encoded(writes, File(source, type))  # type: ignore[arg-type]


def test_parts_of_a_batch_do_not_write_over_each_other(tmp_path: Path) -> None:
    from tundish.codec import codecs_of
    from tundish.testing import Recorder

    reads, writes = codecs_of(Made)
    sizes = [10, 20, 30, 40]
    wishes = [Wish(size, "raise" if size == 30 else "") for size in sizes]
    items = [Item(reads.encode(wish), "application/json") for wish in wishes]
    outcomes = execute.execute(Made(), reads, writes, items, Recorder(), Runtime(folder=tmp_path))
    assert isinstance(outcomes[2], Failed)
    found = [each.body for each in outcomes if isinstance(each, Done)]
    assert [each.path.stat().st_size for each in found if isinstance(each, File)] == [10, 20, 40]
    assert {each.content_type for each in outcomes if isinstance(each, Done)} == {"video/mp4"}
