"""Inputs: what a claim does not bring along is waited for while the device computes, beside the claims that bring all.

What lies at a URL is fetched, to a file where the model reads files; what lies in a blob and is to be read into memory
waits until there is room for it. The items of a claim do so at once. Nobody waits behind a slow one: what has arrived
after PATIENCE seconds goes ahead as a batch of its own, and the rest follows.

What lies in memory has its room until it was predicted, and nothing that has room waits for more: so a batch that
waits is one for which others will make room.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import NamedTuple
from uuid import UUID

from tundish import store
from tundish.blobs import CHUNK
from tundish.ids import new_uuid, to_text
from tundish.job import Code
from tundish.media import OCTETS, essence
from tundish.outcome import Failed
from tundish.settings import Network
from workers.claim import Claim
from workers.fetch import FILE, TIMEOUT, Bounds, Unavailable, fetch
from workers.folders import Arriving, DiskFull, Folder, Folders
from workers.room import Hold, Room

log = logging.getLogger(__name__)

#: Seconds that what has arrived waits for the rest of its batch.
PATIENCE = 0.5
#: URLs of one batch that are fetched at once.
AT_ONCE = 64

#: Content types that say nothing of what they hold.
_UNSAID = ("", OCTETS, "binary/octet-stream")


class _Arrived(NamedTuple):
    """A job whose input is there, or can be read; `taken` bytes of the room are its."""

    job: store.ClaimedJob
    taken: int = 0


_Arrival = Future[_Arrived | Failed]


class Fetcher:
    """Gets the inputs of any number of claims; its event loop runs in a thread of its own. `room` bytes of them lie in
    memory at most. One from a URL has at most `limit` bytes, `within` so many seconds; one in a file what `files` says.
    """

    def __init__(
        self,
        allowed: Sequence[Network],
        limit: int,
        room: int,
        *,
        within: float = TIMEOUT,
        files: Bounds = FILE,
        patience: float = PATIENCE,
    ) -> None:
        self._allowed = allowed
        self._memory = Bounds(limit, within, within)
        self._files = files
        self._room = Room(room)
        self._patience = patience
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="fetches", daemon=True).start()

    def ready(self, claim: Claim, folders: Folders | None) -> Claim | None:
        """The claim, with room for what is read into memory; None where something has to be waited for. `folders` take
        the inputs of a model that reads files."""
        if any(job.input_url for job in claim.jobs):
            return None
        size = sum(job.size for job in claim.jobs if _needs_room(job, folders))
        if size == 0:
            return claim
        taken = asyncio.run_coroutine_threadsafe(self._take(size), self._loop).result()
        return replace(claim, hold=self._hold(size)) if taken else None

    def parts(self, claim: Claim, stopped: threading.Event, folders: Folders | None = None) -> Iterator[Claim]:
        """The claim with its inputs: as it is, or in parts where some are slow. All but the last have new ids, which
        the store does not know of yet. Ends early once `stopped`."""
        try:
            claim = replace(claim, folder=folders.new() if folders else None)
        except DiskFull as error:
            yield _without(claim, error)
            return
        turns = asyncio.Semaphore(AT_ONCE)
        waiting: dict[_Arrival, store.ClaimedJob] = {
            asyncio.run_coroutine_threadsafe(self._get(job, claim.folder, turns), self._loop): job for job in claim.jobs
        }
        while waiting and not stopped.is_set():
            done = wait(waiting, timeout=self._patience).done
            arrived = {future: job for future, job in waiting.items() if future in done}
            waiting = {future: job for future, job in waiting.items() if future not in done}
            if arrived:
                yield self._with(claim, arrived, apart=bool(waiting))
            del done, arrived
        for future in waiting:
            future.cancel()

    def _with(self, claim: Claim, arrived: Mapping[_Arrival, store.ClaimedJob], *, apart: bool) -> Claim:
        """A claim of the jobs that have arrived; `apart` from the others, which come later."""
        jobs: list[store.ClaimedJob] = []
        failed: dict[UUID, Failed] = {}
        taken = 0
        for future, job in arrived.items():
            found = future.result()
            if isinstance(found, Failed):
                failed[job.id] = found
            else:
                job = found.job
                taken += found.taken
            jobs.append(job)
        claim = replace(claim, jobs=jobs, failed=failed, hold=self._hold(taken))
        if not apart:
            return claim
        try:
            folder = claim.folder and claim.folder.part(job.id for job in jobs)
        except DiskFull as error:
            claim, folder = _without(claim, error), None
        return replace(claim, id=new_uuid(), folder=folder)

    def _hold(self, size: int) -> Hold | None:
        """Room that was taken, in the hands of a batch."""
        return Hold(partial(self._loop.call_soon_threadsafe, self._room.give, size)) if size else None

    # In the event loop.

    async def _take(self, size: int) -> bool:
        return size <= self._room.size and self._room.take(size)

    async def _get(self, job: store.ClaimedJob, folder: Folder | None, turns: asyncio.Semaphore) -> _Arrived | Failed:
        try:
            return await self._arrived(job, folder, turns)
        except Exception as error:  # whatever a server makes of our client: its job fails alone
            return _failed(job, error)

    async def _arrived(self, job: store.ClaimedJob, folder: Folder | None, turns: asyncio.Semaphore) -> _Arrived:
        """Raises Unavailable, DiskFull and TooLarge."""
        if job.input_url is not None:
            async with turns:
                return await (self._to_file(job, job.input_url, folder) if folder else self._fetch(job, job.input_url))
        if not _needs_room(job, folder):
            return _Arrived(job)
        if job.size > self._room.size:
            raise TooLarge(job.size, self._room.size)
        await self._room.wait(job.size)
        return _Arrived(job, job.size)

    async def _to_file(self, job: store.ClaimedJob, url: str, folder: Folder) -> _Arrived:
        with folder.arriving(job.id) as file:
            body = _File(file)
            given = await fetch(url, self._allowed, body.write, self._files)
            await body.flush()
            return _Arrived(_given(job, given))

    async def _fetch(self, job: store.ClaimedJob, url: str) -> _Arrived:
        with suppress(NotYet):
            return await self._to_memory(job, url, _Body(self._room))
        # Its server would not wait: it is asked again, with room for whatever comes.
        await self._room.wait(self._memory.size)
        return await self._to_memory(job, url, _Body(self._room, self._memory.size))

    async def _to_memory(self, job: store.ClaimedJob, url: str, body: "_Body") -> _Arrived:
        """Room that the body does not take is given back. Raises Unavailable and NotYet."""
        kept = 0
        try:
            given = await fetch(url, self._allowed, body.write, self._memory)
            job = _given(job, given)._replace(body=body.getvalue())
            kept = body.size
        finally:
            self._room.give(body.taken - kept)
        return _Arrived(job, kept)


class NotYet(Exception):
    """There is no room for more of a body."""


class TooLarge(Exception):
    """All of the room would not take an input."""

    def __init__(self, size: int, room: int) -> None:
        super().__init__(
            f"the input has {size} bytes, and its worker takes {room} bytes of inputs into memory: "
            "a model on tundish.File takes it as a file, a worker with more memory may take it as it is"
        )


class _Body:
    """What is fetched into memory. Room for it is taken as it comes, whatever its server says of its size, where it was
    not `taken` before: one that drips holds no more than it sends."""

    def __init__(self, room: Room, taken: int = 0) -> None:
        self._room = room
        self._pieces = BytesIO()
        self.taken = taken
        self.getvalue = self._pieces.getvalue

    @property
    def size(self) -> int:
        return self._pieces.tell()

    async def write(self, piece: bytes) -> None:
        more = self.size + len(piece) - self.taken
        if more > 0:
            if not self._room.take(more):
                raise NotYet
            self.taken += more
        self._pieces.write(piece)


class _File:
    """What is fetched to a file. It is written in a thread, CHUNK bytes at once: a disk may be slow."""

    def __init__(self, file: Arriving) -> None:
        self._file = file
        self._pieces: list[bytes] = []
        self._size = 0

    async def write(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= CHUNK:
            await self.flush()

    async def flush(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        await asyncio.to_thread(self._file.write, b"".join(pieces))


def _needs_room(job: store.ClaimedJob, folder: Folder | Folders | None) -> bool:
    """Whether a job's input lies in a blob that is read into memory."""
    return job.blob is not None and folder is None


def _without(claim: Claim, error: Exception) -> Claim:
    """The claim where none of its jobs has an input."""
    return replace(claim, failed={job.id: _failed(job, error) for job in claim.jobs})


def _failed(job: store.ClaimedJob, error: Exception) -> Failed:
    """Why a job has no input."""
    extra = {"job": to_text("job", job.id)}
    if not isinstance(error, (Unavailable, DiskFull, TooLarge)):
        log.error("a fetch failed in the worker itself", exc_info=error, extra=extra)
        return Failed(Code.INPUT_UNAVAILABLE, "the input URL cannot be used")
    log.info("a job has no input: %s", error, extra=extra)
    if isinstance(error, Unavailable):
        return Failed(Code.INPUT_UNAVAILABLE, f"the input URL cannot be used: {error}")
    code = Code.OUT_OF_MEMORY if isinstance(error, TooLarge) else Code.INPUT_UNAVAILABLE
    return Failed(code, str(error))


def _given(job: store.ClaimedJob, given: str) -> store.ClaimedJob:
    """The job with the Content-Type of its input; until here it is what its model takes. Raises Unavailable."""
    wanted, kind = job.content_type, essence(given)
    if wanted != OCTETS and kind != essence(wanted) and kind not in _UNSAID:
        raise Unavailable(f"it is {kind}; the model takes {wanted}")
    return job._replace(content_type=wanted if kind in _UNSAID else given)
