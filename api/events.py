"""`GET /v1/jobs/{id}/events`: a job's way as server-sent events.

What is sent is read from two places: statuses from the job's row, all else from its stream in Redis. Where that has
been lost, the statuses come all the same.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.http import bad_query, header, job_id, known_parameters, unless_gone
from api.parts import Parts
from api.streams import PAGE, Page, frame
from tundish.errors import NotFound, Unavailable
from tundish.events import Kind, Position
from tundish.job import Status
from tundish.store import JobRow
from tundish.view import job_json

#: Seconds after which a comment says that the stream still stands: proxies end a silent one after 30 s or more.
HEARTBEAT = 15.0
#: Seconds between two reads of the row while Postgres does not answer.
RETRY = 1.0
#: The id of a job's last event: who comes back with it has seen all.
END = "end"

_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would gather the events
}

Say = Callable[[bytes], Awaitable[None]]


class JobEvents:
    """The handler over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [Route("/v1/jobs/{id}/events", self.events, methods=["GET"])]

    async def events(self, request: Request) -> Response:
        id = job_id(request)
        known_parameters(request, ())
        resumed = next(iter(header(request, b"last-event-id")), "")
        after = Position(0, 0) if resumed in ("", END) else _position(resumed)
        job = await self._parts.job(request.state.tenant, id)
        if resumed == END:
            return Response(status_code=204)
        return EventStream(lambda say: Follower(self._parts, job, after, say).run())


class EventStream(Response):
    """An answer that is sent while `tell` makes it."""

    def __init__(self, tell: Callable[[Say], Awaitable[None]]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def say(body: bytes) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            with suppress(NotFound):  # deleted meanwhile
                await unless_gone(Request(scope, receive), self._tell(say))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Follower:
    """One client's way along a job's events: it knows where it stands, and holds none of them."""

    def __init__(self, parts: Parts, job: JobRow, after: Position, say: Say) -> None:
        self._parts = parts
        self._job = job
        self._after = after
        self._most = PAGE
        self._say = say
        self._said_at = time.monotonic()
        self._bell = asyncio.Event()
        self._moved = asyncio.Event()
        self._moved.set()  # the row was read before anybody could ring

    async def run(self) -> None:
        """Say the status, then what comes, until the job's end is said or this process stops. To say may take its time:
        what comes meanwhile is read from the stream later. Raises NotFound where the job is deleted."""
        waiters, listeners, id = self._parts.waiters, self._parts.listeners, self._job.id
        shown = None
        with waiters.waiting(id, self._bell, self._moved), listeners.waiting(id, self._bell):
            while not waiters.stopped:
                self._bell.clear()
                page = await self._next()
                ended = self._job.status.terminal
                if ended and not page:
                    await self._status(END)
                    return
                now = self._job.status, self._job.attempt
                if shown is None or (now != shown and not ended):
                    shown = now
                    await self._status(str(self._after))
                if page:
                    self._after, self._most = page.last, page.most
                    await self._send(page.frames)
                if not page or not (page.more or ended):
                    await self._wait()

    async def _next(self) -> Page | None:
        """What is behind the position now. The row is read anew where it has moved, or an event tells that it has."""
        if self._moved.is_set():
            await self._read()
        page = await self._parts.streams.after(self._job.id, self._after, self._most)
        if page and (self._job.status is Status.QUEUED or page.last.attempt > self._job.attempt):
            await self._read()
        return page if page and page.last > self._after else None

    async def _read(self) -> None:
        with suppress(Unavailable):  # the row as it was, and soon another try
            self._job = await self._parts.job(self._job.tenant, self._job.id)
            self._moved.clear()
            # What an earlier attempt said is void.
            self._after = max(self._after, Position(self._job.attempt, 0))

    async def _status(self, id: str) -> None:
        progress = await self._parts.streams.progress(self._job)
        body = job_json(self._job, self._parts.settings.public_url, progress)
        await self._send(frame(Kind.STATUS, body, id))

    async def _wait(self) -> None:
        """For news; after a long silence, a comment."""
        silence = HEARTBEAT - (time.monotonic() - self._said_at)
        try:
            async with asyncio.timeout(min(silence, RETRY) if self._moved.is_set() else silence):
                await self._bell.wait()
        except TimeoutError:
            if time.monotonic() - self._said_at >= HEARTBEAT:
                await self._send(b":\n\n")

    async def _send(self, body: bytes) -> None:
        await self._say(body)
        self._said_at = time.monotonic()


def _position(text: str) -> Position:
    """Raises Refused."""
    try:
        return Position.parse(text)
    except ValueError:
        raise bad_query("Last-Event-ID", "is not the id of an event of this call") from None
