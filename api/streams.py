"""Coalesced reads of events: what is asked while a read is on its way to Redis goes with the next one, in one round
trip.

Who listens holds no more than its position in the job's stream: a slow one asks later, and nothing gathers for it.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

import redis.asyncio

from tundish import events
from tundish.events import Position
from tundish.job import Status
from tundish.store import JobRow

log = logging.getLogger(__name__)

#: Reads of one round trip, and the events of one of them at most: 64 MiB where all were as large as they can be.
READS = 64
PAGE = 64
#: Bytes of a page: who does not read pins no more than a few of them. What did not fit is read again.
PAGE_BYTES = 65536
#: Seconds that a request waits at most for what it can do without.
PATIENCE = 0.5

Entry = tuple[bytes, dict[bytes, bytes]]


class Page(NamedTuple):
    """Events of one attempt in their order, framed as they are sent; `last` is where they end. There may be `more`
    behind, of which `most` are to be asked for: fewer where they are large."""

    frames: bytes
    last: Position
    more: bool
    most: int


class _Ask(NamedTuple):
    """For so many events behind a position; for the newest of them alone where `most` is None."""

    job: UUID
    behind: Position
    most: int | None


class Streams:
    """Reads the streams of jobs, each once for all who ask for the same at the same time."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._asked: dict[_Ask, asyncio.Future[Sequence[Entry]]] = {}
        self._bell = asyncio.Event()

    async def after(self, job: UUID, position: Position, most: int) -> Page | None:
        """The next events behind `position`, `most` of them; None where there are none, or Redis does not answer."""
        return _page(await asyncio.shield(self._ask(_Ask(job, position, most))), most)

    async def progress(self, job: JobRow) -> float | None:
        """The latest progress of a job that runs; None for others, and where it has told none."""
        if job.status is not Status.RUNNING:
            return None
        found = self._ask(_Ask(job.id, Position(job.attempt, 0), None))
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for _, entry in await asyncio.shield(found):
                    return events.progress_of(entry)
        return None

    async def forget(self, job: UUID) -> None:
        """Delete a job's events; where Redis does not answer they go by their age."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._client.delete(events.key(job))
        except Exception as error:  # a cut connection shows as almost anything
            log.warning("the events of a deleted job are kept for a while, Redis does not answer: %r", error)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self._bell.wait()
            # Taken out before the read: who asks from now on must see what happens from now on.
            asked = {ask: self._asked.pop(ask) for ask in list(self._asked)[:READS]}
            if not self._asked:
                self._bell.clear()
            for future, entries in zip(asked.values(), await self._read(list(asked)), strict=True):
                future.set_result(entries)

    def _ask(self, ask: _Ask) -> "asyncio.Future[Sequence[Entry]]":
        found = self._asked.get(ask)
        if found is None:
            found = self._asked[ask] = asyncio.get_running_loop().create_future()
            self._bell.set()
        return found

    async def _read(self, asked: Sequence[_Ask]) -> list[Sequence[Entry]]:
        pipeline = self._client.pipeline(transaction=False)
        for ask in asked:
            name, behind = events.key(ask.job), f"({ask.behind}"
            if ask.most is None:
                pipeline.xrevrange(name, "+", behind, count=1)
            else:
                pipeline.xrange(name, behind, "+", count=ask.most)
        try:
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # nobody may wait for an answer in vain
            log.warning("no events, Redis does not answer: %r", error)
            return [()] * len(asked)
        return [() if isinstance(each, Exception) else each for each in answers]


def frame(event: str, data: bytes, id: str) -> bytes:
    """One server-sent event (HTML Living Standard, 9.2). `data` is JSON: what ends a line to many a client, though not
    by the standard, stands in its strings alone and is escaped there."""
    for mark in ("\u0085", "\u2028", "\u2029"):
        data = data.replace(mark.encode(), b"\\u%04x" % ord(mark))
    lines = b"".join(b"data: %b\n" % line for line in data.splitlines())
    return b"id: %b\nevent: %b\n%b\n" % (id.encode(), event.encode(), lines)


def _page(entries: Sequence[Entry], most: int) -> Page | None:
    frames: list[bytes] = []
    size, last, then = 0, Position(0, 0), PAGE
    for id, entry in entries:
        position = Position.parse(id.decode())
        framed = frame(*events.said_by(entry), str(position))
        # A later attempt begins a page of its own: the job's status goes before it.
        if frames and position.attempt != last.attempt:
            break
        if frames and size + len(framed) > PAGE_BYTES:
            then = len(frames) + 1
            break
        frames.append(framed)
        size, last = size + len(framed), position
    return Page(b"".join(frames), last, len(frames) < len(entries) or len(entries) == most, then) if frames else None
