"""Where a request to a URL that somebody else gave us may go: nowhere private, unless the operator allowed it.

One parse of the URL; the request goes to the parts of that parse. The name is resolved once, each address is judged,
and the connection goes to a judged address with the name in Host and SNI, so that a second answer of the DNS changes
nothing. Where a redirect is followed, it is a URL that somebody else gave us.

What goes wrong after the parse is told to the client in one and the same way, so that nobody can read our DNS by it;
the log says more.
"""

import asyncio
import ipaddress
import logging
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urljoin

import certifi

from tundish.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: The addresses of a name. Raises OSError.
Lookup = Callable[[str], Awaitable[Sequence[str]]]

log = logging.getLogger(__name__)

#: Seconds that a look-up may take, its wait for others included.
LOOK_UP = 10.0

#: All of IPv6 that is given out. Beside it lie addresses that reach IPv4 (::/96, ::ffff:0:0/96, 64:ff9b::/96,
#: 64:ff9b:1::/48), loopback, site-local, link-local and unique local ones, multicast and segment routing (5f00::/16).
_GIVEN_OUT = ipaddress.ip_network("2000::/3")
#: Not for us, though `is_global` says True of most.
_REFUSED = [
    ipaddress.ip_network(each)
    for each in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "192.0.0.0/24",  # protocol assignments, and a cloud's metadata
        "192.88.99.0/24",  # 6to4 relays
        "224.0.0.0/4",  # multicast
        "168.63.129.16/32",  # a cloud's host agent
    )
]

_PLAIN = re.compile(r"[!-\[\]-~]{1,2048}")  # visible ASCII, but no backslash
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[0-9]{{1,5}}))?"
    r"(?P<path>[/?][^#]*)?(?:#.*)?",
    re.IGNORECASE,
)
#: A last label that makes a host an address (the URL Standard's "ends in a number").
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")

_NOT_HTTPS = "the URL must be https on port 443, but for a network that an operator allows with TUNDISH_OUTBOUND_ALLOW"
_NOT_PUBLIC = (
    "the URL's host cannot be resolved or is not public; an operator can allow its network with TUNDISH_OUTBOUND_ALLOW"
)


class Refused(ValueError):
    """A URL, or an address that its name resolved to, that is not allowed; the message does not say which address."""


class Unfit(Refused):
    """A URL that is refused for its scheme or port: another look-up changes nothing."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A parsed URL. `path` begins with / and holds the query; the fragment is gone."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        default = 443 if self.scheme == "https" else 80
        return self.host if self.port == default else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """The host as it is resolved, and as a certificate says it."""
        return self.host.strip("[]")

    @property
    def address(self) -> Address | None:
        """The host where it is an address and no name."""
        try:
            return ipaddress.ip_address(self.name)
        except ValueError:
            return None


@cache
def trust() -> ssl.SSLContext:
    """Whose certificates are trusted: those of the system (an operator may have a CA of his own, by SSL_CERT_FILE too),
    and the public CAs where it has none. Reading them takes longer than many a request."""
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(certifi.where())
    return trusted


def parse(url: str) -> Destination:
    """Raises Refused for anything but a plain http or https URL with a name or a canonical address in it."""
    if not url.isascii():
        raise Refused("the URL must be ASCII; write an international name in its xn-- form")
    match = _URL.fullmatch(url) if _PLAIN.fullmatch(url) else None
    if not match or len(match["host"]) > 253:
        raise Refused("not a plain http or https URL of at most 2048 characters")
    scheme, host = match["scheme"].lower(), match["host"].lower()
    if not _canonical(host):
        raise Refused("an address in the URL must be in its canonical form, such as 192.0.2.1 or [2001:db8::1]")
    port = int(match["port"] or (443 if scheme == "https" else 80))
    if not 0 < port < 65536:
        raise Refused("the URL's port is none")
    path = match["path"] or "/"
    return Destination(scheme, host, port, path if path.startswith("/") else "/" + path)


def redirected(destination: Destination, location: str) -> Destination:
    """Where an answer's `location` leads. Raises Refused."""
    if not _PLAIN.fullmatch(location):
        raise Refused("the URL redirects to what is no URL")
    try:
        url = urljoin(f"{destination.scheme}://{destination.authority}{destination.path}", location)
    except ValueError:
        raise Refused("the URL redirects to what is no URL") from None
    return parse(url)


def acceptable(url: str, allowed: Sequence[Network]) -> Destination:
    """What can be said of a URL without asking the DNS: parse it, judge an address in it, ask for https where no
    network is allowed besides. Raises Refused."""
    destination = parse(url)
    if destination.address:
        judge(destination, [destination.name], allowed)
    elif not allowed and not _https(destination):
        raise Unfit(_NOT_HTTPS)
    return destination


def judge(destination: Destination, addresses: Sequence[str], allowed: Sequence[Network]) -> Address:
    """The address to connect to. Raises Refused if any of `addresses` is refused: a private one passes only where
    `allowed` holds it. It is https on 443, unless `allowed` holds all of them."""
    found = [ipaddress.ip_address(each.partition("%")[0]) for each in addresses]
    besides = [one for one in found if not any(one in network for network in allowed)]
    if not found or not all(map(_public, besides)):
        raise Refused(_NOT_PUBLIC)
    if besides and not _https(destination):
        raise Unfit(_NOT_HTTPS)
    return found[0]


class LookUps:
    """The addresses of a name, by the system's resolver: `most` look-ups at once, the others wait. Raises OSError, as
    TimeoutError after LOOK_UP seconds.

    In threads of its own: a DNS that does not answer takes up to a minute, the loop's own threads are few, and who ends
    the loop waits for them."""

    def __init__(self, most: int = 64) -> None:
        self._idle = most  # threads that may be started
        self._waiting: deque[tuple[str, Future[list[Any]]]] = deque()
        self._lock = threading.Lock()

    async def __call__(self, name: str) -> list[str]:
        answers: Future[list[Any]] = Future()
        with self._lock:
            self._waiting.append((name, answers))
            start = self._idle > 0
            self._idle -= start
        if start:
            threading.Thread(target=self._look, name="look up", daemon=True).start()
        async with asyncio.timeout(LOOK_UP):
            return [str(answer[4][0]) for answer in await asyncio.wrap_future(answers)]

    def _look(self) -> None:
        """Until nobody waits."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._idle += 1
                    return
                name, answers = self._waiting.popleft()
            if not answers.set_running_or_notify_cancel():  # who waited has given up
                continue
            try:
                answers.set_result(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
            except Exception as error:
                answers.set_exception(error)


look_up = LookUps()


async def resolve(destination: Destination, allowed: Sequence[Network], look_up: Lookup = look_up) -> Address:
    """Look the name up, once, and judge what it resolves to. Raises Refused."""
    try:
        addresses = [destination.name] if destination.address else await look_up(destination.name)
    except OSError as error:
        log.info("%s cannot be resolved: %s", destination.name, error)
        raise Refused(_NOT_PUBLIC) from None
    try:
        return judge(destination, addresses, allowed)
    except Refused as refused:
        log.info("%s is at %s: %s", destination.name, ", ".join(addresses), refused)
        raise


def pinned(destination: Destination, address: Address, headers: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of an httpx request that goes to `address`, a judged one of `destination`, and to nothing else.

    The client must keep no connection: it would send a request to another name at the same address over a connection
    that was made, and whose certificate was checked, for the first."""
    host = f"[{address}]" if address.version == 6 else str(address)
    return {
        "url": f"{destination.scheme}://{host}:{destination.port}/",
        "headers": {**headers, "host": destination.authority},
        "extensions": {
            "target": destination.path.encode("ascii"),
            "sni_hostname": destination.name,
            "trace": _checks(address),
        },
    }


def check_peer(address: Address, peer: Sequence[Any]) -> None:
    """Raises Refused where a connection to `address`, a judged one, leads to another `peer`, as a socket tells it."""
    if ipaddress.ip_address(peer[0].partition("%")[0]) != address:
        log.error("a connection to %s leads to %s: is there a proxy between?", address, peer[0])
        raise Refused(_NOT_PUBLIC)


def _checks(address: Address) -> Callable[[str, dict[str, Any]], Awaitable[None]]:
    """Refuses a connection to another peer before a byte is sent over it."""

    async def trace(event: str, given: dict[str, Any]) -> None:
        if event != "connection.connect_tcp.complete":
            return
        stream = given["return_value"]
        try:
            check_peer(address, stream.get_extra_info("server_addr"))
        except Refused:
            await stream.aclose()
            raise

    return trace


def _canonical(host: str) -> bool:
    """Whether a host is a name, or an address written as everyone reads it: `getaddrinfo` takes 2130706433, 0x7f.1 and
    127.1 for 127.0.0.1."""
    bracketed = host.startswith("[")
    if not bracketed and not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return True
    read = ipaddress.IPv6Address if bracketed else ipaddress.IPv4Address
    try:
        return str(read(host.strip("[]"))) == host.strip("[]")
    except ValueError:
        return False


def _https(destination: Destination) -> bool:
    return (destination.scheme, destination.port) == ("https", 443)


def _public(address: Address) -> bool:
    given_out = address.version == 4 or address in _GIVEN_OUT
    return given_out and address.is_global and not any(address in network for network in _REFUSED)
