"""The inputs of a claim, which arrive from real servers at different times: in parts, within room, and as files."""

import errno
import os
import shutil
import socket
import tempfile
import threading
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.origin import ALLOWED, head, serving
from tests.local import wait_until
from tundish import store
from tundish.blobs import Directory
from tundish.file import File
from tundish.ids import new_uuid
from tundish.job import Code
from tundish.outcome import Failed
from workers.batch import Target
from workers.claim import Claim
from workers.fetch import Bounds
from workers.folders import Folders
from workers.inputs import Fetcher


def job(url: str | None, content_type: str = "application/json") -> store.ClaimedJob:
    body = b"1" if url is None else None
    return store.ClaimedJob(new_uuid(), 1, 1, 0, content_type, body, None, None, None, url, 1, None)


def claim(*jobs: store.ClaimedJob) -> Claim:
    return Claim(new_uuid(), Target("m", "1"), jobs)


def predicted(parts: Iterator[Claim]) -> Iterator[Claim]:
    """The parts; each has made room, as once it was predicted, before the next one is waited for."""
    for part in parts:
        if part.hold:
            part.hold.give()
        yield part


def sizes(part: Claim) -> list[int]:
    return [len(each.body or b"") for each in part.jobs]


def two_but_late(path: str, gate: threading.Event) -> Callable[[socket.socket, str], None]:
    """A server that answers 2, under this path once the gate is open."""

    def answer(peer: socket.socket, asked: str) -> None:
        if asked.startswith(f"GET {path}"):
            gate.wait(10)
        peer.sendall(head(1) + b"2")

    return answer


def test_what_has_arrived_goes_ahead_of_what_is_slow() -> None:
    gate = threading.Event()

    with serving(two_but_late("/slow", gate)) as url:
        slow, quick, here = job(f"{url}/slow"), job(f"{url}/quick"), job(None)
        whole = claim(slow, quick, here)
        parts = Fetcher(ALLOWED, 1000, 10_000, patience=1.0).parts(whole, threading.Event())
        ahead = next(parts)
        gate.set()
        [rest] = parts
    assert ahead.id != whole.id
    assert [(each.id, each.body) for each in ahead.jobs] == [(quick.id, b"2"), (here.id, b"1")]
    assert rest.id == whole.id
    assert [(each.id, each.body) for each in rest.jobs] == [(slow.id, b"2")]


def test_what_there_is_no_room_for_is_fetched_once_there_is() -> None:
    def answer(peer: socket.socket, asked: str) -> None:
        peer.sendall(head(600 if asked.startswith("GET /said") else None) + b"2" * 600)

    with serving(answer) as url:
        whole = claim(*(job(f"{url}/{name}") for name in ("said", "unsaid", "said", "said")))
        parts = Fetcher(ALLOWED, 1000, 1300, patience=1.0).parts(whole, threading.Event())
        found = [sizes(part) for part in predicted(parts)]
    assert max(map(sum, found)) <= 1300
    assert sum(map(len, found)) == 4
    assert all(size == 600 for part in found for size in part)


def test_a_server_that_drips_takes_room_for_what_it_sends_alone() -> None:
    gate = threading.Event()

    def answer(peer: socket.socket, asked: str) -> None:
        if asked.startswith("GET /drips"):
            peer.sendall(head(None) + b"2")
            gate.wait(10)
        else:
            peer.sendall(head(900) + b"2" * 900)

    with serving(answer) as url:
        whole = claim(*(job(f"{url}/{name}") for name in ("drips", "drips", "drips", "whole")))
        parts = Fetcher(ALLOWED, 1000, 1000, patience=1.0).parts(whole, threading.Event())
        assert sizes(next(parts)) == [900]
        gate.set()
        assert sorted(size for part in predicted(parts) for size in sizes(part)) == [1, 1, 1]


def test_servers_whose_answers_grow_hold_up_nobody() -> None:
    """Each takes what room there is, and would then wait for more."""
    asked_of: Counter[str] = Counter()

    def answer(peer: socket.socket, asked: str) -> None:
        name = asked.split(" ")[1]
        asked_of[name] += 1
        size = min(1000, 500 * asked_of[name])
        peer.sendall(head(size) + b"2" * size)

    with serving(answer) as url:
        whole = claim(*(job(f"{url}/{number}") for number in range(4)))
        parts = list(predicted(Fetcher(ALLOWED, 1000, 1300, patience=1.0).parts(whole, threading.Event())))
    assert sum(len(part.jobs) for part in parts) == 4
    assert not any(part.failed for part in parts)
    assert max(sum(sizes(part)) for part in parts) <= 1300


def test_an_input_larger_than_all_room_is_fetched_alone() -> None:
    with serving(lambda peer, asked: peer.sendall(head(600) + b"2" * 600)) as url:
        parts = Fetcher(ALLOWED, 1000, 100, patience=1.0).parts(claim(job(url), job(url)), threading.Event())
        assert [sizes(part) for part in predicted(parts)] == [[600], [600]]


def test_a_worker_that_stops_waits_for_no_url() -> None:
    gate, stopped = threading.Event(), threading.Event()

    def answer(peer: socket.socket, asked: str) -> None:
        stopped.set()
        gate.wait(10)

    with serving(answer) as url:
        assert list(Fetcher(ALLOWED, 1000, 10_000, within=600).parts(claim(job(url)), stopped)) == []
        gate.set()


def test_one_that_hangs_fails_alone_at_the_time_limit() -> None:
    gate = threading.Event()

    with serving(two_but_late("/hangs", gate)) as url:
        hangs, quick = job(f"{url}/hangs"), job(f"{url}/quick")
        [whole] = Fetcher(ALLOWED, 1000, 10_000, within=1.0, patience=10.0).parts(
            claim(hangs, quick), threading.Event()
        )
        gate.set()
    assert [each.body for each in whole.jobs] == [None, b"2"]
    assert {id: (failed.code, "over 1 s" in failed.message) for id, failed in whole.failed.items()} == {
        hangs.id: (Code.INPUT_UNAVAILABLE, True)
    }


@pytest.mark.parametrize(
    ("wanted", "given", "kept"),
    [
        ("application/json", "application/json", "application/json"),
        ("application/json", "Application/JSON; charset=utf-8", "Application/JSON; charset=utf-8"),
        ("application/json", "", "application/json"),
        ("application/json", "binary/octet-stream", "application/json"),
        ("application/json", "text/html", None),
        ("application/x-npy", "application/x-npy", "application/x-npy"),
        ("application/x-npy", "application/octet-stream", "application/x-npy"),
        ("application/x-npy", "application/json", None),
        ("application/octet-stream", "image/png", "image/png"),
        ("application/octet-stream", "", "application/octet-stream"),
    ],
)
def test_a_content_type_fits_the_model_or_says_nothing(wanted: str, given: str, kept: str | None) -> None:
    headers: dict[str, Any] = {"content_type": given} if given else {}
    with serving(lambda peer, asked: peer.sendall(head(1, **headers) + b"1")) as url:
        [part] = Fetcher(ALLOWED, 1000, 10_000).parts(claim(job(url, wanted)), threading.Event())
    if kept is None:
        [failed] = part.failed.values()
        assert isinstance(failed, Failed)
        assert (failed.code, given in failed.message) == (Code.INPUT_UNAVAILABLE, True)
    else:
        assert (part.failed, part.jobs[0].content_type) == ({}, kept)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def files(disk: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in disk.rglob("input-*"))


def test_an_input_of_a_model_of_files_is_one_and_takes_no_room(disk: Path) -> None:
    gate = threading.Event()

    def answer(peer: socket.socket, asked: str) -> None:
        size = 3_000_000 if asked.startswith("GET /slow") else 4_000_000
        if size == 3_000_000:
            gate.wait(10)
        peer.sendall(head(size, content_type="audio/wav") + b"2" * size)

    with serving(answer) as url:
        whole = claim(*(job(f"{url}/{name}", "application/octet-stream") for name in ("slow", "quick")))
        parts = Fetcher(ALLOWED, 1000, 1000, patience=1.0).parts(whole, threading.Event(), Folders())
        ahead = next(parts)
        gate.set()
        [rest] = parts
    for part, placed, size in ((ahead, whole.jobs[1], 4_000_000), (rest, whole.jobs[0], 3_000_000)):
        assert part.folder
        assert (part.hold, part.failed) == (None, {})
        [found] = part.jobs
        file = part.folder.fetch(found, Directory(disk, b""))
        assert (found.id, file) == (placed.id, File(file.path, "audio/wav"))
        assert file.path.parent == part.folder.path
        assert file.path.read_bytes() == b"2" * size
    del part, ahead
    assert [len(body) for body in files(disk)] == [3_000_000]
    del rest
    assert files(disk) == []


def test_a_file_that_is_too_large_or_breaks_off_or_drips_leaves_nothing(disk: Path) -> None:
    over = threading.Event()

    def answer(peer: socket.socket, asked: str) -> None:
        if asked.startswith("GET /large"):
            peer.sendall(head(None) + bytes(3_000_000))
        elif asked.startswith("GET /breaks"):
            peer.sendall(head(1_900_000) + bytes(1_800_000))
        elif asked.startswith("GET /drips"):
            peer.sendall(head(1_900_000) + bytes(1_800_000))
            over.wait(30)
        else:
            peer.sendall(head(2) + b"hi")

    with serving(answer) as url:
        whole = claim(*(job(f"{url}/{name}", "application/octet-stream") for name in ("large", "breaks", "drips", "x")))
        fetcher = Fetcher(ALLOWED, 1000, 1000, files=Bounds(2_000_000, 3.0, 30.0), patience=30.0)
        [part] = fetcher.parts(whole, threading.Event(), Folders())
        over.set()
    assert files(disk) == [b"hi"]
    assert {failed.code for failed in part.failed.values()} == {Code.INPUT_UNAVAILABLE}
    large, breaks, drips = (part.failed[each.id].message for each in whole.jobs[:3])
    assert "over 2000000 bytes" in large
    assert "connection fails" in breaks
    assert "sends under 16777216 bytes in 3 s" in drips


def test_a_file_that_the_disk_does_not_hold_fails_alone(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 66 * 2**20 - sum(map(len, files(disk)))))
    with serving(lambda peer, asked: peer.sendall(head(3_000_000) + bytes(3_000_000))) as url:
        [part] = Fetcher(ALLOWED, 1000, 1000).parts(claim(job(url)), threading.Event(), Folders())
    assert files(disk) == []
    [failed] = part.failed.values()
    assert (failed.code, "TMPDIR" in failed.message) == (Code.INPUT_UNAVAILABLE, True)


@pytest.mark.parametrize("folders", [0, 1])
def test_a_batch_that_the_disk_takes_no_folder_for_fails(
    disk: Path, monkeypatch: pytest.MonkeyPatch, folders: int
) -> None:
    """Neither its own, nor one for the part of it that goes ahead."""
    gate, made, make = threading.Event(), list[str](), tempfile.mkdtemp

    def answer(peer: socket.socket, asked: str) -> None:
        if asked.startswith("GET /slow"):
            gate.wait(10)
        peer.sendall(head(1) + b"2")

    def full(**given: Any) -> str:
        if len(made) == folders:
            gate.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        made.append(make(**given))
        return made[-1]

    with serving(answer) as url:
        whole = claim(*(job(f"{url}/{name}", "application/octet-stream") for name in ("slow", "quick")))
        into = Folders()
        monkeypatch.setattr(tempfile, "mkdtemp", full)
        parts = list(Fetcher(ALLOWED, 1000, 1000, patience=1.0).parts(whole, threading.Event(), into))
    failed = [each.message for part in parts for each in part.failed.values()]
    assert len(failed) == 2 - folders
    assert all("No space left" in message for message in failed)
    assert sum(len(part.jobs) for part in parts) == 2


def test_a_file_that_is_no_longer_wanted_leaves_nothing(disk: Path) -> None:
    """Its worker stops within the fetch."""
    gate, stopped = threading.Event(), threading.Event()

    def answer(peer: socket.socket, asked: str) -> None:
        peer.sendall(head(None) + bytes(5_000_000))
        wait_until(lambda: any(files(disk)), "some of it lies on the disk")
        stopped.set()
        gate.wait(10)

    with serving(answer) as url:
        assert list(Fetcher(ALLOWED, 1000, 1000).parts(claim(job(url)), stopped, Folders())) == []
        wait_until(lambda: files(disk) == [], "the file is gone")
        gate.set()
