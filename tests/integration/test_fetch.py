"""One fetch of one URL, from real servers that misbehave."""

import asyncio
import gzip
import io
import ipaddress
import random
import socket
import ssl
import threading
import tracemalloc
import zlib
from contextlib import suppress

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.origin import ALLOWED, head, serving
from tests.local import LOCALHOST
from tundish import outbound
from tundish.blobs import CHUNK
from workers.fetch import Bounds, Unavailable, fetch

#: Seconds of a fetch that shall not end by itself.
SHORT = 0.5


class Into(io.BytesIO):
    """What is fetched."""

    async def take(self, piece: bytes) -> None:
        self.write(piece)


def fetched(url: str, limit: int = 1000, within: float = 100.0, in_all: float = 10.0) -> tuple[str, bytes]:
    into = Into()
    return asyncio.run(fetch(url, ALLOWED, into.take, Bounds(limit, within, in_all))), into.getvalue()


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
        assert (status, len(found) <= len(said)) == (b"200 OK", True)
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
