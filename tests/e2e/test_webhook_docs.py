"""The receivers that docs/webhooks.md shows, run as they stand against a running system."""

import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.http import free_port
from tests.local import TREE, wait_until
from tundish import webhooks

PAGE = (TREE / "docs" / "webhooks.md").read_text()
SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SHOWN = {
    "python": (sys.executable, ".py"),
    "js": (shutil.which("node"), ".cjs"),
}


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def hung_up(port: int) -> bytes:
    """What is answered to a POST that ends within its body."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as caller, caller.makefile("rb") as answer:
        caller.sendall(b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        caller.shutdown(socket.SHUT_WR)
        return answer.read()


def delivered(client: httpx.Client, endpoint: str) -> list[Any]:
    found = client.get("/v1/deliveries", params={"endpoint": endpoint}).json()["data"]
    return [attempt for each in found for attempt in each["attempts"]]


@pytest.mark.parametrize("language", SHOWN)
def test_the_receiver_takes_what_is_signed_and_nothing_else(
    client: httpx.Client, tmp_path: Path, language: str
) -> None:
    program, suffix = SHOWN[language]
    if program is None:
        pytest.skip("node is not installed")
    [code] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    port = free_port()
    url = f"http://127.0.0.1:{port}/hook"
    made = client.post("/v1/webhooks", json={"url": url, "events": ["job.succeeded"]}).json()
    source = tmp_path / f"receiver{suffix}"
    source.write_text(code.replace("9000", str(port)).replace(SECRET, made["secret"].removeprefix("whsec_")))
    with subprocess.Popen([program, str(source)], stderr=subprocess.PIPE) as receiver:
        try:
            wait_until(lambda: listens(port), "the receiver listens")
            client.post(f"/v1/webhooks/{made['id']}/ping")
            [attempt] = wait_until(lambda: delivered(client, made["id"]) or None, "the ping was sent")
            assert attempt["status_code"] == 204
            other = webhooks.new_secret()
            for secret, age, status in ((made["secret"], 0, 204), (made["secret"], 600, 401), (other, 0, 401)):
                signed = webhooks.headers([webhooks.new_secret(), secret], "whd_1", int(time.time()) - age, b"{}")
                assert httpx.post(url, content=b"{}", headers=signed).status_code == status
                assert httpx.post(url, content=b"[]", headers=signed).status_code == 401
            good = webhooks.headers([made["secret"]], "whd_1", int(time.time()), b"{}")
            odd = webhooks.headers([made["secret"]], "whd_1", "now", b"{}")  # type: ignore[arg-type]  # it is no time
            assert [httpx.post(url, content=b"{}", headers=each).status_code for each in ({}, odd)] == [401, 401]
            assert b" 204 " not in hung_up(port)
            assert httpx.post(url, content=b"{}", headers=good).status_code == 204
        finally:
            receiver.kill()
            client.delete(f"/v1/webhooks/{made['id']}")
