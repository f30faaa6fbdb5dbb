"""One POST of a webhook: signed, to an address that was judged, followed nowhere, and given up in time."""

import asyncio
import ipaddress
import math
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

import aiohttp
from aiohappyeyeballs import AddrInfoType
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from tundish import outbound, store, webhooks
from tundish.ids import to_text
from tundish.media import JSON
from tundish.settings import Network
from workers.verdict import Answer

#: Seconds that a try may take, from the look-up of the name to the end of the answer (Standard Webhooks).
TIMEOUT = 15.0
#: Seconds of these that it may take to connect.
CONNECT = 5.0
#: Bytes of the answer that are read at most.
ANSWER_MAX = 65536
#: What the system is asked to buffer of it: one read brings at most twice that much (Linux doubles it).
BUFFER = 8192
#: Seconds that a judged address holds: thousands of deliveries to one receiver need one look-up.
JUDGED = 10.0
#: Seconds that a connection is kept for the next delivery.
KEPT = 15.0
#: Seconds for which an origin that answered is known to answer.
KNOWN = 60.0


@dataclass(slots=True)
class _Origin:
    """Where deliveries go: the look-up of its address, and until when that holds; when it last answered. Seconds of the
    monotonic clock."""

    judging: "asyncio.Task[str]"
    until: float
    answered_at: float


class _Connector(aiohttp.TCPConnector):
    """Refuses a connection to another peer than the judged address, which stands in the URL, before a byte is sent."""

    async def _wrap_create_connection(
        self, *args: Any, addr_infos: list[AddrInfoType], req: aiohttp.ClientRequest, **more: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        family, kind, protocol, _, where = addr_infos[0]
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            await self._loop.sock_connect(connection, where)
            outbound.check_peer(ipaddress.ip_address(str(req.url.host)), connection.getpeername())
        except BaseException:
            connection.close()
            raise
        return await self._wrap_existing_connection(*args, req=req, sock=connection, **more)


class Post:
    """Sends; keeps connections and judged addresses. Use it as an async context manager."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._origins: dict[tuple[str, str, int], _Origin] = {}
        # Apart, so that names whose DNS hangs keep none waiting that answered lately.
        self._look_ups = {known: outbound.LookUps() for known in (True, False)}

    async def __aenter__(self) -> "Post":
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, ssl=outbound.trust(), keepalive_timeout=KEPT),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nobody reads it; what is small may unfold to much
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT),  # ours is around all of it
            trust_env=False,
            skip_auto_headers=("accept", "accept-encoding"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, due: store.Due) -> Answer:
        """Send once; where a kept connection may have been closed just then, once more: the receiver knows the id."""
        try:
            to = _parse(due.url)
            origin = self._origin(to)
            async with asyncio.timeout(TIMEOUT):
                try:
                    return await self._post(due, to, origin)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError) as failed:
                    new = isinstance(failed, aiohttp.ClientConnectorError)  # there was none that was kept
                    if new or origin.answered_at < time.monotonic() - KEPT:
                        raise
                return await self._post(due, to, origin)
        except aiohttp.ConnectionTimeoutError:
            return Answer(None, f"no connection within {CONNECT:g} s")
        except TimeoutError:
            return Answer(None, f"no answer within {TIMEOUT:g} s")
        except outbound.Refused as refused:
            return Answer(None, str(refused), final=isinstance(refused, outbound.Unfit))
        except (aiohttp.ClientError, OSError, ValueError) as failed:
            return Answer(None, f"the connection failed: {type(failed).__name__}")

    async def _post(self, due: store.Due, to: outbound.Destination, origin: _Origin) -> Answer:
        address = await asyncio.shield(origin.judging)
        signed = webhooks.headers(due.secrets, to_text("whd", due.id), int(time.time()), due.body)
        async with self._session.post(
            _url(due.url, address),
            data=due.body,
            headers={"host": to.authority, "content-type": JSON, "user-agent": "Tundish", **signed},
            server_hostname=to.name if to.scheme == "https" else None,
            allow_redirects=False,
        ) as response:
            async for _ in response.content.iter_any():
                if response.content.total_bytes > ANSWER_MAX - 2 * BUFFER:  # another read could pass it
                    response.close()
                    break
            origin.answered_at = time.monotonic()
            return Answer(response.status, None, response.headers.get("retry-after"))

    def _origin(self, to: outbound.Destination) -> _Origin:
        """Who goes to the same at the same time shares the look-up, which may refuse it."""
        key, now = (to.scheme, to.host, to.port), time.monotonic()
        origin = self._origins.get(key)
        if origin is None or (origin.judging.done() and (origin.until < now or origin.judging.exception())):
            answered_at = origin.answered_at if origin else -math.inf
            self._origins = {
                each: other
                for each, other in self._origins.items()
                if max(other.until, other.answered_at + KNOWN) > now or not other.judging.done()
            }
            judging = asyncio.create_task(self._judge(to, answered_at > now - KNOWN))
            judging.add_done_callback(asyncio.Task.exception)  # whoever asked may have given up
            origin = self._origins[key] = _Origin(judging, now + JUDGED, answered_at)
        return origin

    async def _judge(self, to: outbound.Destination, known: bool) -> str:
        """The address as a URL has it."""
        address = await outbound.resolve(to, self._allowed, self._look_ups[known])
        return f"[{address}]" if address.version == 6 else str(address)


#: Most deliveries go where others went before: a tenth of a delivery's CPU.
_parse = lru_cache(4096)(outbound.parse)


@lru_cache(4096)
def _url(url: str, address: str) -> URL:
    """The URL with the address in the name's place, from the parts of our own parse."""
    to = _parse(url)
    path, _, query = to.path.partition("?")
    return URL.build(scheme=to.scheme, host=address, port=to.port, path=path, query_string=query, encoded=True)
