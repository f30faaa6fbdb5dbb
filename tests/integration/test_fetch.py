"""A fetch from real servers that misbehave, and a claim whose inputs arrive at different times."""

import asyncio
import gzip
import io
import ipaddress
import random
import shutil
import socket
import ssl
import tempfile
import threading
import tracemalloc
import zlib
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.local import LOCALHOST, wait_until
from tundish import execute, outbound, store
from tundish.blobs import CHUNK, Directory
from tundish.file import File
from tundish.ids import new_uuid
from tundish.job import Code
from workers.batch import Target
from workers.claim import Claim
from workers.fetch import Bounds, Unavailable, fetch
from workers.folders import Folders
from workers.inputs import Fetcher

ALLOWED = outbound.networks("127.0.0.0/8")
#: Seconds of a fetch that shall not end by itself.
SHORT = 0.5


@contextmanager
def serving(answer: Callable[[socket.socket, str], None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that calls `answer` with each connection and the head of its request, in a thread; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(peer: socket.socket) -> None:
            with tls.wrap_socket(peer, server_side=True) if tls else peer as peer:
                head = b""
                while b"\r\n\r\n" not in head and (piece := peer.recv(65536)):
                    head += piece
                with suppress(OSError):  # the client may be gone
                    answer(peer, head.decode("latin-1"))

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


class Into(io.BytesIO):
    """What is fetched."""

    async def take(self, piece: bytes) -> None:
        self.write(piece)


def fetched(url: str, limit: int = 1000, within: float = 100.0, in_all: float = 10.0) -> tuple[str, bytes]:
    into = Into()
    return asyncio.run(fetch(url, ALLOWED, into.take, Bounds(limit, within, in_all))), into.getvalue()


def head(length: int | None, **headers: str) -> bytes:
    given = {} if length is None else {"content-length": str(length)}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in (given | headers).items()]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()


def test_what_is_sent_and_what_is_not() -> None:
    heads: list[str] = []

    def answer(peer: socket.socket, asked: str) -> None:
        heads.append(asked)
        peer.sendall(head(2, content_type="text/x", set_cookie="a=b; path=/") + b"hi")

    with serving(answer) as url:
        assert fetched(f"{url}/a/../b?c=|%2F") == ("text/x", b"hi")
        fetched(f"{url}/")
    lines = heads[0].split("\r\n")
    assert lines[0] == "GET /a/../b?c=|%2F HTTP/1.1"
    assert f"host: {url[7:]}" in lines
    assert "accept-encoding: identity" in lines
    assert "cookie" not in heads[1].lower()


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n"])
@pytest.mark.parametrize("step", [1, 1000])
def test_a_server_that_drips_ends_at_the_time_limit(monkeypatch: pytest.MonkeyPatch, step: int, first: bytes) -> None:
    """Each byte comes well within any time-out of a read: it is the whole that is bounded."""
    monkeypatch.setattr("workers.fetch.STEP", step)
    over = threading.Event()

    def answer(peer: socket.socket, asked: str) -> None:
        peer.sendall(first)
        while not over.wait(SHORT / 20):
            peer.sendall(b"x" if first else b"HTTP/1.1 100 Continue\r\n\r\n")

    with serving(answer) as url:
        with pytest.raises(Unavailable, match=r"over 0\.5 s"):
            fetched(url, in_all=SHORT)
        over.set()


@pytest.mark.parametrize("step", [10, 10_000])
def test_one_that_is_large_has_its_time_for_each_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """It takes longer than a step may; where it brings too little for one, it is ended."""
    monkeypatch.setattr("workers.fetch.STEP", step)
    over = threading.Event()

    def answer(peer: socket.socket, asked: str) -> None:
        peer.sendall(head(300))
        for _ in range(30):
            over.wait(0.1)
            peer.sendall(b"x" * 10)

    with serving(answer) as url:
        if step == 10:
            assert fetched(url, within=2.0)[1] == b"x" * 300
        else:
            with pytest.raises(Unavailable, match=r"under 10000 bytes in 2 s"):
                fetched(url, within=2.0)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_is_bounded(declared: bool) -> None:
    def answer(peer: socket.socket, asked: str) -> None:
        size = int(asked.split(" ")[1][1:])
        peer.sendall(head(size if declared else None) + b"x" * size)

    with serving(answer) as url:
        assert fetched(f"{url}/1000")[1] == b"x" * 1000
        with pytest.raises(Unavailable, match="over 1000 bytes"):
            fetched(f"{url}/1001")


def test_a_body_is_bounded_decompressed() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 60_000
    into = Into()

    def answer(peer: socket.socket, asked: str) -> None:
        peer.sendall(head(len(bomb), content_encoding="gzip") + bomb)

    tracemalloc.start()
    with serving(answer) as url, pytest.raises(Unavailable, match="over 1000 bytes"):
        asyncio.run(fetch(url, ALLOWED, into.take, Bounds(1000, 10.0, 10.0)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert into.tell() <= 1000
    assert most < 10_000_000


def test_what_is_large_once_decompressed_comes_in_small_pieces() -> None:
    body, pieces = random.randbytes(100_000) + bytes(5_000_000) + b"end", list[bytes]()
    packed = gzip.compress(body)

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    with serving(lambda peer, asked: peer.sendall(head(len(packed), content_encoding="gzip") + packed)) as url:
        asyncio.run(fetch(url, ALLOWED, write, Bounds(len(body), 10.0, 10.0)))
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= CHUNK


GZIP = gzip.compress(b"hello", mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body", "says"),
    [
        ("gzip", GZIP[:-3], "cut short"),
        ("gzip", b"hello", "error"),
        ("gzip", GZIP + GZIP, "more than"),
        ("br", b"hello", "encoded as br"),
        ("deflate", zlib.compress(b"hello"), "encoded as deflate"),
        ("gzip, gzip", gzip.compress(GZIP, mtime=0), "encoded as gzip, gzip"),
    ],
    ids=["cut", "none", "twice", "br", "deflate", "nested"],
)
def test_an_encoding_that_is_broken_or_not_read(encoding: str, body: bytes, says: str) -> None:
    def answer(peer: socket.socket, asked: str) -> None:
        peer.sendall(head(len(body), content_encoding=encoding) + body)

    with serving(answer) as url, pytest.raises(Unavailable, match=says):
        fetched(url)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi"]
)
def test_a_server_that_breaks_off_or_speaks_no_http(said: bytes) -> None:
    with serving(lambda peer, asked: peer.sendall(said)) as url, pytest.raises(Unavailable, match="connection fails"):
        fetched(url)


_LINES = st.lists(
    st.tuples(
        st.sampled_from([b"Location", b"Content-Type", b"Content-Length", b"Content-Encoding", b"Transfer-Encoding"]),
        st.sampled_from([b"gzip", b"chunked", b"\xff\xfe", b"//[", b"http://\xe9/", b"", b"-1", b"/"])
        | st.binary(max_size=9),
    ),
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from([b"200 OK", b"302 Found", b"204 No", b"101 Up", b"999"]), _LINES, st.binary(max_size=20))
def test_whatever_a_server_says_is_fetched_or_unavailable(
    status: bytes, lines: list[tuple[bytes, bytes]], body: bytes
) -> None:
    said = b"\r\n".join([b"HTTP/1.1 " + status, *(name + b": " + value for name, value in lines), b"", body])
    with serving(lambda peer, asked: peer.sendall(said)) as url, suppress(Unavailable):
        content_type, found = fetched(url)
        assert (status, len(found) <= 20) == (b"200 OK", True)
        assert isinstance(content_type, str)


def test_a_port_that_nobody_listens_on() -> None:
    with serving(lambda peer, asked: None) as url:
        pass
    with pytest.raises(Unavailable, match="connection fails"):
        fetched(url)


@pytest.mark.usefixtures("localhost_trusted")
def test_what_the_system_trusts_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(LOCALHOST)

    def answer(peer: socket.socket, asked: str) -> None:
        peer.sendall(head(2) + b"hi")

    with serving(answer, tls) as url:
        assert fetched(url.replace("http://127.0.0.1", "https://localhost"))[1] == b"hi"


def test_a_connection_that_leads_to_another_peer_carries_nothing() -> None:
    heads: list[str] = []
    with serving(lambda peer, asked: heads.append(asked)) as url:
        destination = outbound.parse(url)
        given = outbound.pinned(destination, ipaddress.ip_address("127.0.0.2"), {})

        async def send() -> None:
            async with httpx.AsyncHTTPTransport(trust_env=False) as transport:
                await transport.handle_async_request(httpx.Request("GET", **{**given, "url": url}))

        with pytest.raises(outbound.Refused):
            asyncio.run(send())
    assert "".join(heads) == ""


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


def test_what_has_arrived_goes_ahead_of_what_is_slow() -> None:
    gate = threading.Event()

    def answer(peer: socket.socket, asked: str) -> None:
        if asked.startswith("GET /slow"):
            gate.wait(10)
        peer.sendall(head(1) + b"2")

    with serving(answer) as url:
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

    def answer(peer: socket.socket, asked: str) -> None:
        if asked.startswith("GET /hangs"):
            gate.wait(10)
        peer.sendall(head(1) + b"2")

    with serving(answer) as url:
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
        assert isinstance(failed, execute.Failed)
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
