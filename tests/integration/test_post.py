"""One POST of a webhook over real sockets: where it goes, what it says, and how much it puts up with."""

import asyncio
import ipaddress
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
import uvloop

from tests.local import LOCALHOST
from tundish import store
from tundish.ids import new_uuid
from tundish.settings import Network
from workers import post
from workers.post import Post
from workers.verdict import Answer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


def allowed(*networks: str) -> list[Network]:
    return [ipaddress.ip_network(each) for each in networks]


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def send(
    serve: Serve,
    *paths: str,
    scheme: str = "http",
    tls: ssl.SSLContext | None = None,
    beside: Sequence[str] = (),
    run: Callable[[Coroutine[Any, Any, list[Answer]]], list[Answer]] = asyncio.run,
) -> list[Answer]:
    """What comes of sending to each path of a server, one after the other; after the first begin those `beside`."""

    serving: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def sending() -> list[Answer]:
        server = await asyncio.start_server(handle, "localhost", 0, ssl=tls)
        ports = [each.getsockname()[1] for each in server.sockets]
        port = ports[0]
        if len(set(ports)) > 1:  # one a family: take the one that the name resolves to first
            found = await asyncio.get_running_loop().getaddrinfo("localhost", None)
            port = next(each.getsockname()[1] for each in server.sockets if each.family == found[0][0])
        async with server, Post(allowed("127.0.0.0/8", "::1/128")) as sender:
            answers: list[Answer] = []
            others: list[asyncio.Task[Answer]] = []
            for path in paths:
                answers.append(await sender.send(due(f"{scheme}://localhost:{port}{path}")))
                others = others or [asyncio.create_task(sender.send(due(url))) for url in beside]
                await asyncio.sleep(0)
            for other in others:
                other.cancel()
        await asyncio.gather(*filter(None, serving))
        return answers

    return run(sending())


def due(url: str) -> store.Due:
    return store.Due(new_uuid(), new_uuid(), None, url, b'{"a": 1}', 0, "", [SECRET], True)


async def request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return head[0], headers, await reader.readexactly(int(headers["content-length"]))


@pytest.mark.usefixtures("localhost_trusted")
def test_it_goes_to_the_judged_address_and_says_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(LOCALHOST)
    names: list[str | None] = []
    tls.sni_callback = lambda _, name, __: names.append(name)
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request(reader))
        writer.write(OK)

    assert send(serve, "/a%2Fb?c=%20d&e", scheme="https", tls=tls) == [Answer(204)]
    [(line, headers, body)] = seen
    assert names == ["localhost"]
    assert line == "POST /a%2Fb?c=%20d&e HTTP/1.1"
    assert headers["host"].startswith("localhost:")
    assert headers["content-type"] == "application/json"
    assert (headers["webhook-id"][:4], body) == ("whd_", b'{"a": 1}')
    assert set(headers) >= {"webhook-timestamp", "webhook-signature", "user-agent"}


def test_a_certificate_that_nobody_trusts_is_refused() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(LOCALHOST)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("a request came")

    [answer] = send(serve, "/", scheme="https", tls=tls)
    assert answer == Answer(None, "the connection failed: ClientConnectorCertificateError")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_at_most_64_kib_of_an_answer_are_read(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    came: list[int] = []
    feed = aiohttp.StreamReader.feed_data

    def count(reader: aiohttp.StreamReader, data: bytes, *more: Any) -> Any:
        came.append(len(data))
        return feed(reader, data, *more)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 1_000_000)
            await writer.drain()  # fails once the courier has hung up

    monkeypatch.setattr(aiohttp.StreamReader, "feed_data", count)
    assert send(serve, "/", run=run) == [Answer(200)]
    assert 32768 < sum(came) <= 65536


def test_an_answer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "TIMEOUT", 0.3)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        hung_up = asyncio.ensure_future(reader.read())
        while not hung_up.done():
            writer.write(b".")
            await asyncio.wait([hung_up], timeout=0.05)
        await hung_up

    assert send(serve, "/") == [Answer(None, "no answer within 0.3 s")]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_kept_connection_that_was_closed_or_reset_costs_no_try(run: Any, reset: bool) -> None:
    """It is reset where the receiver had closed it before the request came, and that was not seen at once."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await request(reader)
        requests += 1
        writer.write(OK)
        await request(reader)  # and hangs up: it was about to, when this came
        requests += 1
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    assert send(serve, "/", "/", run=run) == [Answer(204), Answer(204)]
    assert requests == 3


def test_one_that_only_hangs_up_is_asked_once() -> None:
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await request(reader)
        requests += 1

    assert send(serve, "/") == [Answer(None, "the connection failed: ServerDisconnectedError")]
    assert requests == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"220 mail.example.com ESMTP\r\n", "ClientResponseError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "ClientPayloadError"),
    ],
)
def test_what_is_no_answer_of_http_is_a_failure(answer: bytes, error: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(answer)

    assert send(serve, "/") == [Answer(None, f"the connection failed: {error}")]


def test_what_it_says_of_when_to_come_again_is_kept() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")

    assert send(serve, "/") == [Answer(429, None, "7")]


@pytest.mark.parametrize(
    ("url", "final"),
    [
        ("http://127.0.0.1:9/", False),
        ("https://localhost/", False),
        ("http://2130706433/", False),
        ("ftp://a/", False),
        ("http://8.8.8.8/", True),
        ("https://8.8.8.8:8443/", True),
    ],
)
@pytest.mark.parametrize("allow", [[], ["10.0.0.0/8"]])
def test_nothing_private_and_nothing_but_https_is_connected_to(url: str, final: bool, allow: list[str]) -> None:
    async def run() -> Answer:
        async with Post(allowed(*allow)) as sender:
            return await sender.send(due(url))

    answer = asyncio.run(run())
    assert (answer.status_code, answer.final) == (None, final)
    assert "the connection failed" not in (answer.error or "")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_that_leads_to_another_peer_carries_nothing(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.put_nowait(await reader.read())
        writer.close()

    async def leads_there(_: object, host: str, port: int, **__: object) -> list[dict[str, Any]]:
        there = {"host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
        return [{"hostname": host, **there}]

    async def run() -> Answer:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Post(allowed("127.0.0.0/8")) as sender:
            answer = await sender.send(due(f"{scheme}://127.0.0.2:{port}/"))
            assert await came.get() == b""
        return answer

    monkeypatch.setattr(aiohttp.TCPConnector, "_resolve_host", leads_there)
    answer = asyncio.run(run())
    assert "not public" in (answer.error or "")


def test_a_known_name_is_looked_up_apart_from_those_whose_dns_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, look_up = threading.Event(), socket.getaddrinfo
    hanging = [f"http://{number}.test/" for number in range(100)]

    def hangs(host: str, *more: Any, **options: Any) -> Any:
        if host.endswith(".test"):
            gate.wait()
        return look_up(host, *more, **options)

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK)
        await request(reader)
        writer.write(OK)

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr(post, "JUDGED", 0.0)
    try:
        assert send(run, "/", "/", beside=hanging) == [Answer(204), Answer(204)]
    finally:
        gate.set()


@pytest.mark.skipif(sys.platform != "linux", reason="how many connections wait to be taken differs")
def test_a_receiver_that_takes_no_connection_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "CONNECT", 0.2)

    async def run(url: str) -> Answer:
        async with Post(allowed("127.0.0.0/8")) as sender:
            return await sender.send(due(url))

    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # holds one that nobody has accepted
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        answer = asyncio.run(run(f"http://127.0.0.1:{full.getsockname()[1]}/"))
    assert answer == Answer(None, "no connection within 0.2 s")
