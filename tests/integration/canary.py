"""`python -m tests.integration.canary FOLDER`, in a fresh network and mount namespace: each address there is, is one of
this machine, and who connects to any is written down.

Sends each row of the guard's table through the loader's fetch and the courier's post, and prints who was reached, as
JSON. The DNS is real too: a server that answers as the table says, once so and once otherwise.
"""

import asyncio
import ipaddress
import json
import os
import re
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.unit.outbound_vectors import NAMES, REDIRECTS, REFUSED
from tundish import store, webhooks
from tundish.ids import new_uuid
from tundish.settings import Network
from workers import fetch
from workers.post import Post

PORTS = (22, 80, 443, 6379, 8000, 8080, 8443, 9200)
#: Where redirects come from: a network that the phase allows.
ORIGIN = "198.18.0.1"

Reached = list[tuple[str, int, str]]


def run(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True, timeout=20)


def enter(folder: Path) -> None:
    """Make every address local, and the DNS ours."""
    run("ip link set lo up")
    run("ip route add local 0.0.0.0/0 dev lo")
    run("ip -6 route add local ::/0 dev lo")
    for name, text in (
        ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ):
        (folder / name).write_text(text)
        run(f"mount --bind {folder / name} /etc/{name}")


def certificate(folder: Path) -> Path:
    """A key and a certificate for the public names and addresses of the table."""
    names = "DNS:public.test,DNS:rebinds.test,IP:8.8.8.8,IP:2606:4700::1111"
    run(
        f"cd {folder} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN=test -addext subjectAltName={names} -keyout key.pem -out cert.pem && cat key.pem >> cert.pem"
    )
    return folder / "cert.pem"


class Canaries:
    """Listeners on each of PORTS at every address; 443 speaks TLS."""

    def __init__(self, certificate: Path) -> None:
        self.reached: Reached = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        canaries = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                address, port = self.request.getsockname()[:2]
                at = address.removeprefix("::ffff:")
                canaries.reached.append((at, port, ""))
                try:
                    with context.wrap_socket(self.request, server_side=True) if port == 443 else self.request as peer:
                        peer.settimeout(5)
                        canaries.answer(at, port, peer)
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            address_family = socket.AF_INET6
            daemon_threads = True
            request_queue_size = 64

        for port in PORTS:
            server = Server(("::", port), Handler, bind_and_activate=False)
            server.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.server_bind()
            server.server_activate()
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def answer(self, at: str, port: int, peer: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := peer.recv(65536)):
                return
            head += piece
        asked, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.reached[self.reached.index((at, port, ""))] = (at, port, headers["host"])
        if len(head) - head.index(b"\r\n\r\n") - 4 < int(headers.get("content-length", 0)):
            peer.recv(65536)
        path = asked.split(" ")[1]
        status, more = "200 OK", ""
        if path.startswith("/to/") and path[4:].isdigit():
            status, more = "302 Found", f"Location: {location(int(path[4:]))}\r\n"
        if path == "/again":  # the same name, at which the DNS has a second answer by now
            status, more = "302 Found", f"Location: https://{headers['host']}/\r\n"
        peer.sendall(f"HTTP/1.1 {status}\r\n{more}Content-Length: 2\r\nConnection: close\r\n\r\nhi".encode("latin-1"))


def location(index: int) -> str:
    """A row of the table, as a header can carry it."""
    url = [*(url for url, _ in REFUSED), *(location for location, _ in REDIRECTS)][index]
    return re.sub("[\r\n\0]", "\t", url).encode("utf-8", "replace").decode("latin-1")


class Dns(socketserver.BaseRequestHandler):
    """Answers for each of NAMES, and for any other name 127.0.0.1."""

    asked: ClassVar[Counter[str]] = Counter()

    def handle(self) -> None:
        question, socket_ = self.request
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode().lower())
            at += length + 1
        name, (kind,) = ".".join(labels), struct.unpack(">H", question[at + 1 : at + 3])
        family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
        rounds = NAMES[name][0] if name in NAMES else [["127.0.0.1"]]
        turn = self.asked[name]
        self.asked[name] += kind == 1
        found = [
            socket.inet_pton(family, each)
            for each in rounds[min(turn, len(rounds) - 1)]
            if family and (":" in each) == (family == socket.AF_INET6)
        ]
        head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, len(found), 0, 0)
        answers = [struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(each)) + each for each in found]
        socket_.sendto(head + question[12 : at + 5] + b"".join(answers), self.client_address)


async def by_fetch(url: str, allowed: Sequence[Network]) -> str:
    async def write(piece: bytes) -> None:
        """Nobody reads it."""

    try:
        await fetch.fetch(url, allowed, write, fetch.Bounds(1000, 5.0, 5.0))
    except fetch.Unavailable as error:
        return str(error)
    return "fetched"


async def by_post(url: str, allowed: Sequence[Network]) -> str:
    due = store.Due(new_uuid(), new_uuid(), None, url, b"{}", 0, "", [webhooks.new_secret()], True)
    async with Post(allowed) as post:
        answer = await post.send(due)
    return "sent" if answer.status_code == 200 else str(answer.error or answer.status_code)


def main(folder: Path) -> None:
    enter(folder)
    pem = certificate(folder)
    canaries = Canaries(pem)
    dns = socketserver.ThreadingUDPServer(("127.0.0.1", 53), Dns)
    threading.Thread(target=dns.serve_forever, daemon=True).start()
    os.environ["SSL_CERT_FILE"] = str(pem)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ[name] = os.environ[name.upper()] = "http://127.0.0.1:8080"

    def phase(send: Callable[..., Any], urls: Sequence[str], allow: Sequence[str] = ()) -> dict[str, Any]:
        canaries.reached.clear()
        Dns.asked.clear()
        said = {}
        for url in urls:
            said[url] = asyncio.run(send(url, [ipaddress.ip_network(each) for each in allow]))
        return {"said": said, "reached": sorted(canaries.reached), "asked": dict(Dns.asked)}

    refused = [url for url, _ in REFUSED] + [f"https://{name}/" for name, (_, no) in NAMES.items() if no]
    refused += ["https://localhost/", "https://any-other-name.test/", "http://localhost:8080/"]
    public = ["https://public.test/", "https://8.8.8.8/", "https://[2606:4700::1111]/", "https://rebinds.test/"]
    inside = ["10.0.0.1:8080", "127.0.0.1:6379", "169.254.169.254", "[::1]:8000", "[fd00::1]:9200", "[64:ff9b::a00:1]"]
    redirects = [f"http://{ORIGIN}:8000/to/{index}" for index in range(len(REFUSED) + len(REDIRECTS))]
    phases = {
        "refused by fetch": phase(by_fetch, refused),
        "refused by post": phase(by_post, refused),
        "redirects": phase(by_fetch, redirects, [ORIGIN]),
        "rebinding at a redirect": phase(by_fetch, ["https://rebinds.test/again"]),
        "public by fetch": phase(by_fetch, public),
        "public by post": phase(by_post, [url for url in public if "[" not in url]),
        "allowed by fetch": phase(by_fetch, [f"http://{at}/" for at in inside], ("0.0.0.0/0", "::/0")),
        "allowed by post": phase(by_post, [f"http://{at}/" for at in inside], ("0.0.0.0/0", "::/0")),
    }
    json.dump(phases, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
