"""Fetch: what a URL of a caller leads to, guarded, and bounded in time and in bytes.

A fetch has its seconds for each STEP bytes, so that who drips ends soon and who is large has time.

Nothing is shared between two fetches: no connection, no cookie, no proxy of the environment.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

import httpx

from tundish import outbound
from tundish.blobs import CHUNK, UPLOAD_MAX
from tundish.settings import Network

#: Seconds of a fetch for each STEP bytes; those of the first bring lookups and redirects, too.
TIMEOUT = 30.0
STEP = 16 << 20
#: Redirects that are followed, each checked like the first URL.
REDIRECTS = 5

_MOVED = (301, 302, 303, 307, 308)
_HEADERS = {"user-agent": "tundish", "accept": "*/*", "accept-encoding": "identity", "connection": "close"}
_GZIP = ("gzip", "x-gzip")


class Bounds(NamedTuple):
    """Of a fetch: `size` bytes, decompressed; `within` so many seconds each STEP of them, and all of it `in_all`."""

    size: int
    within: float
    in_all: float


#: Of what goes to a file.
FILE = Bounds(UPLOAD_MAX, TIMEOUT, 3600.0)


class Unavailable(Exception):
    """A URL that does not give what it should; the message is for its caller, and names no address."""


async def fetch(url: str, allowed: Sequence[Network], write: Callable[[bytes], Awaitable[None]], bounds: Bounds) -> str:
    """Write what `url` leads to, piece by piece. Its Content-Type; empty where it says none. Raises Unavailable."""
    now = asyncio.get_running_loop().time
    until = now() + bounds.in_all
    try:
        async with asyncio.timeout_at(min(now() + bounds.within, until)) as clock, _transport() as transport:
            answer = await _follow(transport, url, allowed)
            if answer.status_code != 200:
                raise Unavailable(f"it answers {answer.status_code}")
            size = 0
            async for piece in _bounded(answer, bounds.size):
                await write(piece)
                if size // STEP < (size := size + len(piece)) // STEP:
                    clock.reschedule(min(now() + bounds.within, until))
            return str(answer.headers.get("content-type", ""))
    except TimeoutError:
        slow = (
            f"sends under {STEP} bytes in {bounds.within:g} s" if now() < until else f"takes over {bounds.in_all:g} s"
        )
        raise Unavailable(f"it {slow}") from None
    except outbound.Refused as refused:
        raise Unavailable(str(refused)) from refused
    except (httpx.HTTPError, OSError, zlib.error) as error:
        raise Unavailable(f"the connection fails: {type(error).__name__}") from error


def _transport() -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(
        verify=outbound.trust(), trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
    )


async def _follow(transport: httpx.AsyncHTTPTransport, url: str, allowed: Sequence[Network]) -> httpx.Response:
    """The answer at the end of the redirects, its body not read yet."""
    destination = outbound.parse(url)
    for _ in range(REDIRECTS + 1):
        address = await outbound.resolve(destination, allowed)
        request = httpx.Request("GET", **outbound.pinned(destination, address, _HEADERS))
        answer = await transport.handle_async_request(request)
        if answer.status_code not in _MOVED or "location" not in answer.headers:
            return answer
        await answer.aclose()
        destination = outbound.redirected(destination, answer.headers["location"])
    raise Unavailable(f"it redirects more than {REDIRECTS} times")


async def _bounded(answer: httpx.Response, limit: int) -> AsyncIterator[bytes]:
    """The body in small pieces, no more than `limit` bytes of it once decompressed."""
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", *_GZIP):
        raise Unavailable(f"it is encoded as {encoding}; gzip alone is read")
    gzip = zlib.decompressobj(wbits=31) if encoding in _GZIP else None
    size = 0
    async for raw in answer.aiter_raw():
        while raw:
            if gzip:
                piece, raw = gzip.decompress(raw, min(CHUNK, limit - size + 1)), gzip.unconsumed_tail
            else:
                piece, raw = raw, b""
            size += len(piece)
            if size > limit:
                raise Unavailable(f"it is over {limit} bytes")
            yield piece
        if gzip and gzip.unused_data:
            raise Unavailable("it holds more than its gzip encoding says")
    if gzip and not gzip.eof:
        raise Unavailable("it is cut short")
