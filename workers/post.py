"""One POST of a webhook: signed, to an address that was judged, followed nowhere, and given up in time."""

import asyncio
import ssl
import time
from types import SimpleNamespace, TracebackType

import aiohttp
import certifi
from yarl import URL

from tundish import outbound, store, webhooks
from tundish.ids import to_text
from workers.verdict import Answer

#: Seconds that a try may take, from the look-up of the name to the end of the answer (Standard Webhooks).
TIMEOUT = 15.0
#: Bytes of the answer that are read.
ANSWER_MAX = 65536
#: Seconds that a judged address holds: thousands of deliveries to one receiver need one look-up.
JUDGED = 10.0
#: Seconds that a connection is kept for the next delivery.
KEPT = 15.0

_Origin = tuple[str, str, int]


class Post:
    """Sends; keeps connections and judged addresses. Use it as an async context manager."""

    def __init__(self, allowed: list[outbound.Network]) -> None:
        self._allowed = allowed
        self._judged: dict[_Origin, tuple[float, asyncio.Task[outbound.Address]]] = {}

    async def __aenter__(self) -> "Post":
        # What the system trusts (an operator may have a CA of his own), and the public CAs where it has none.
        trusted = ssl.create_default_context()
        trusted.load_verify_locations(certifi.where())
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_kept)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=trusted, keepalive_timeout=KEPT),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nobody reads it; what is small may unfold to much
            timeout=aiohttp.ClientTimeout(total=None),  # ours is around all of it
            trust_env=False,
            trace_configs=[trace],
            skip_auto_headers=("accept", "accept-encoding"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, due: store.Due) -> Answer:
        """Send once; where a kept connection was closed just then, once more: the receiver knows the id."""
        try:
            async with asyncio.timeout(TIMEOUT):
                kept: list[bool] = []
                try:
                    return await self._post(due, kept)
                except (aiohttp.ServerDisconnectedError, OSError):
                    if not kept:
                        raise
                return await self._post(due, kept)
        except TimeoutError:
            return Answer(None, f"no answer within {TIMEOUT:g} s")
        except outbound.Refused as refused:
            return Answer(None, str(refused))
        except (aiohttp.ClientError, OSError, ValueError) as failed:
            return Answer(None, f"the connection failed: {type(failed).__name__}")

    async def _post(self, due: store.Due, kept: list[bool]) -> Answer:
        """`kept` gets an entry where it went over a kept connection."""
        to = outbound.parse(due.url)
        address = await self._address(to)
        path, _, query = to.path.partition("?")
        signed = webhooks.headers(due.secrets, to_text("whd", due.id), int(time.time()), due.body)
        async with self._session.post(
            URL.build(scheme=to.scheme, host=str(address), port=to.port, path=path, query_string=query, encoded=True),
            data=due.body,
            headers={"host": to.authority, "content-type": "application/json", "user-agent": "Tundish", **signed},
            server_hostname=to.host.strip("[]") if to.scheme == "https" else None,
            allow_redirects=False,
            trace_request_ctx=kept,
        ) as response:
            read = 0
            async for piece in response.content.iter_any():
                read += len(piece)
                if read >= ANSWER_MAX:
                    response.close()
                    break
            return Answer(response.status, None, response.headers.get("retry-after"))

    async def _address(self, to: outbound.Destination) -> outbound.Address:
        """Where to connect to. Raises Refused. Who asks for the same at the same time shares the look-up."""
        origin, now = (to.scheme, to.host, to.port), time.monotonic()
        until, judging = self._judged.get(origin, (0.0, None))
        if judging is None or until < now or (judging.done() and judging.exception()):
            self._judged = {each: judged for each, judged in self._judged.items() if judged[0] > now}
            judging = asyncio.create_task(outbound.resolve(to, self._allowed))
            judging.add_done_callback(asyncio.Task.exception)  # whoever asked may have given up
            self._judged[origin] = (now + JUDGED, judging)
        return await asyncio.shield(judging)


async def _note_kept(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    context.trace_request_ctx.append(True)
