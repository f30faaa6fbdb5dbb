"""Where a request to a URL that somebody else gave us may go: nowhere private, unless the operator allowed it.

One parse of the URL; the request goes to the parts of that parse. The name is resolved once, each address is judged,
and the connection goes to a judged address with the name in Host and SNI, so that a second answer of the DNS changes
nothing.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Not for us, though `is_global` says True of most: translations that reach IPv4, multicast, old site-local, relays,
#: documentation, segment routing, and the address of a cloud's host agent.
_REFUSED = [
    ipaddress.ip_network(each)
    for each in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "::/96",
        "::ffff:0:0/96",
        "fec0::/10",
        "3fff::/20",
        "5f00::/16",
        "224.0.0.0/4",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",
    )
]
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_.])?)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>[/?][!-\[\]-~]*)?",
    re.IGNORECASE,
)
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)$", re.IGNORECASE)


class Refused(ValueError):
    """A URL, or an address that its name resolved to, that is not allowed; the message does not say which address."""


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


def networks(text: str) -> list[Network]:
    """The networks of TUNDISH_OUTBOUND_ALLOW. Raises ValueError for one that is none."""
    return [ipaddress.ip_network(each.strip()) for each in text.split(",") if each.strip()]


def parse(url: str) -> Destination:
    """Raises Refused for anything but a plain http or https URL with a name or a canonical address in it."""
    if not url.isascii():
        raise Refused("the URL's host must be ASCII; write an international name in its xn-- form")
    match = _URL.fullmatch(url.split("#", 1)[0])
    if not match or len(url) > 2048:
        raise Refused("not a plain http or https URL of at most 2048 characters")
    host = match["host"].lower()
    if not host.startswith("[") and _NUMERIC.search(host.rstrip(".").rpartition(".")[2]):
        try:
            canonical = str(ipaddress.IPv4Address(host))
        except ValueError:
            canonical = ""
        if canonical != host:
            raise Refused("an address in the URL must be four decimal numbers")
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise Refused("the address in brackets is not an IPv6 address") from None
    scheme = match["scheme"].lower()
    port = int(match["port"] or (443 if scheme == "https" else 80))
    if not 0 < port < 65536:
        raise Refused("the URL's port is none")
    path = match["path"] or "/"
    return Destination(scheme, host, port, path if path.startswith("/") else "/" + path)


def acceptable(url: str, allowed: Sequence[Network]) -> Destination:
    """What can be said of a URL without asking the DNS: parse it, judge an address in it, ask for https where no
    network is allowed besides. Raises Refused."""
    destination = parse(url)
    host = destination.host.strip("[]")
    if destination.host.startswith("[") or host.replace(".", "").isdigit():
        judge(destination, [host], allowed)
    elif not allowed and (destination.scheme, destination.port) != ("https", 443):
        raise Refused("the URL must be https on port 443")
    return destination


def judge(destination: Destination, addresses: Sequence[str], allowed: Sequence[Network]) -> Address:
    """The address to connect to. Raises Refused if any of `addresses` is refused: private ones pass only where
    `allowed` holds all of them, and then http and any port do too; else it is https on 443."""
    found = [ipaddress.ip_address(each.partition("%")[0]) for each in addresses]
    if not found:
        raise Refused("the URL's host has no address")
    if all(any(one in network for network in allowed) for one in found):
        return found[0]
    if not all(_public(one) for one in found):
        raise Refused("the URL's host is not public; an operator can allow its network with TUNDISH_OUTBOUND_ALLOW")
    if (destination.scheme, destination.port) != ("https", 443):
        raise Refused("the URL must be https on port 443")
    return found[0]


async def resolve(destination: Destination, allowed: Sequence[Network]) -> Address:
    """Look the name up, once, and judge what it resolves to. Raises Refused."""
    host = destination.host.strip("[]")
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, destination.port, type=socket.SOCK_STREAM)
    except OSError:
        raise Refused("the URL's host cannot be resolved") from None
    return judge(destination, [str(answer[4][0]) for answer in answers], allowed)


def _public(address: Address) -> bool:
    return address.is_global and not any(address in network for network in _REFUSED)
