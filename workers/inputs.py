"""Inputs: what a claim names by a URL is fetched while the device computes, beside the claims that need no URL.

The items of a claim are fetched at once. Nobody waits behind a slow URL: what has arrived after PATIENCE seconds goes
ahead as a batch of its own, and the rest follows.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from io import BytesIO
from uuid import UUID

from tundish import execute, outbound, store
from tundish.codec import OCTETS
from tundish.ids import new_uuid, to_text
from tundish.job import Code
from workers.claim import Claim
from workers.fetch import TIMEOUT, Unavailable, fetch
from workers.room import Room

log = logging.getLogger(__name__)

#: Seconds that what has arrived waits for the rest of its batch.
PATIENCE = 0.5
#: URLs of one batch that are fetched at once.
AT_ONCE = 64

#: Content types that say nothing of what they hold.
_UNSAID = ("", OCTETS, "binary/octet-stream")

#: A body and its Content-Type; None for a job that needs no fetch. Or it raises Unavailable.
_Fetched = Future[tuple[bytes, str] | None]


class Fetcher:
    """Fetches inputs of at most `limit` bytes from their URLs, each `within` so many seconds; `room` bytes of them at
    once, or one. Its event loop runs in a thread of its own, for any number of others."""

    def __init__(
        self,
        allowed: Sequence[outbound.Network],
        limit: int,
        room: int,
        *,
        within: float = TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        self._allowed = allowed
        self._limit = limit
        self._room = Room(room)
        self._within = within
        self._patience = patience
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="fetches", daemon=True).start()

    def parts(self, claim: Claim, stopped: threading.Event) -> Iterator[Claim]:
        """The claim with its inputs: as it is, or in parts where some are slow. All but the last have new ids, which
        the store does not know of yet. Ends early once `stopped`."""
        turns = asyncio.Semaphore(AT_ONCE)
        waiting: dict[_Fetched, store.ClaimedJob] = {
            asyncio.run_coroutine_threadsafe(self._get(job, turns), self._loop): job for job in claim.jobs
        }
        while waiting and not stopped.is_set():
            done = wait(waiting, timeout=self._patience).done
            arrived = {future: job for future, job in waiting.items() if future in done}
            waiting = {future: job for future, job in waiting.items() if future not in done}
            if arrived:
                yield _with(replace(claim, id=new_uuid()) if waiting else claim, arrived)
                # It is with the device now, or next to be: how many that are is bounded.
                self._loop.call_soon_threadsafe(self._room.give, sum(map(_size, arrived)))
            del done, arrived
        for future in waiting:
            future.cancel()

    async def _get(self, job: store.ClaimedJob, turns: asyncio.Semaphore) -> tuple[bytes, str] | None:
        if job.input_url is None:
            return None
        async with turns:
            try:
                return await self._fetched(job.input_url, _Body(self._room))
            except NotYet:  # its server would not wait: it is asked again, with room for whatever comes
                await self._room.wait(self._limit)
                return await self._fetched(job.input_url, _Body(self._room, self._limit))

    async def _fetched(self, url: str, body: "_Body") -> tuple[bytes, str]:
        """A body and its Content-Type; room that it does not take is given back. Raises Unavailable and NotYet."""
        kept = 0
        try:
            given = await fetch(url, self._allowed, body, self._limit, self._within)
            kept = body.tell()
        finally:
            self._room.give(body.taken - kept)
        return body.getvalue(), given


class NotYet(Exception):
    """There is no room for more of a body."""


class _Body(BytesIO):
    """What has been fetched. Room for it is taken as it comes, whatever its server says of its size, where it was not
    `taken` before: one that drips holds no more than it sends."""

    def __init__(self, room: Room, taken: int = 0) -> None:
        super().__init__()
        self._room = room
        self.taken = taken

    def write(self, piece: bytes) -> int:  # type: ignore[override]  # nothing else is fetched
        more = self.tell() + len(piece) - self.taken
        if more > 0:
            if not self._room.take(more):
                raise NotYet
            self.taken += more
        return super().write(piece)


def _size(future: _Fetched) -> int:
    """Bytes that were fetched."""
    fetched = None if future.exception() else future.result()
    return len(fetched[0]) if fetched else 0


def _with(claim: Claim, arrived: Mapping[_Fetched, store.ClaimedJob]) -> Claim:
    """A claim of the jobs that have arrived."""
    jobs: list[store.ClaimedJob] = []
    failed: dict[UUID, execute.Failed] = {}
    for future, job in arrived.items():
        try:
            fetched = future.result()
            if fetched is not None:
                job = _given(job, *fetched)
        except Unavailable as error:
            log.info("an input URL gives nothing: %s", error, extra={"job": to_text("job", job.id)})
            failed[job.id] = execute.Failed(Code.INPUT_UNAVAILABLE, f"the input URL cannot be used: {error}")
        except Exception:  # whatever a server makes of our client: its job fails alone
            log.exception("a fetch failed in the worker itself", extra={"job": to_text("job", job.id)})
            failed[job.id] = execute.Failed(Code.INPUT_UNAVAILABLE, "the input URL cannot be used")
        jobs.append(job)
    return replace(claim, jobs=jobs, failed=failed)


def _given(job: store.ClaimedJob, body: bytes, given: str) -> store.ClaimedJob:
    """The job with its input; until here `content_type` is what its model takes. Raises Unavailable."""
    wanted, essence = job.content_type, _essence(given)
    if wanted != OCTETS and essence != _essence(wanted) and essence not in _UNSAID:
        raise Unavailable(f"it is {essence}; the model takes {wanted}")
    return job._replace(body=body, content_type=wanted if essence in _UNSAID else given)


def _essence(content_type: str) -> str:
    """A media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()
