"""HTTP as clients speak it: those that offer another protocol, and those that ask for heads alone."""

import http.client
import json
import socket

import httpx
import pytest

from tests.conftest import KEY
from tests.local import Local, ended, submit


@pytest.mark.parametrize(("version", "also"), [("1.1", "close"), ("1.0", "TE")])
def test_who_offers_http_2_and_hangs_up_then_is_answered(system: Local, version: str, also: str) -> None:
    head = f"GET /healthz HTTP/{version}\r\nHost: x\r\nConnection: {also}, Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with socket.create_connection(("127.0.0.1", system.port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.getheader("connection")) == (200, "close")


@pytest.mark.parametrize("cut", [None, 0, 20], ids=["at once", "head first", "a part first"])
def test_who_would_rather_speak_http_2_is_answered_in_http_1(system: Local, cut: int | None) -> None:
    """As clients in Java ask at their first request."""
    body = b'{"model": "echo", "input": {"value": 1}}'
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        f"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", system.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):  # the connection stays good
            pieces = [head + body] if cut is None else [head + body[:cut], body[cut:]]
            for piece in pieces:
                connection.sendall(piece)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            shown = answer.read()
            assert (answer.status, json.loads(shown).get("status")) == (202, "queued"), shown


def test_whatever_is_got_has_a_head(client: httpx.Client) -> None:
    job = ended(client, submit(client, "echo", {"value": 1})["id"])
    here = job["urls"]["self"]
    for path in (here, f"{here}/result", f"{here}/input", "/v1/jobs?limit=1", "/v1/models", "/v1/workers"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
