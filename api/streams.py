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
from redis import RedisError

from tundish import events
from tundish.events import Position
from tundish.job import Status
from tundish.store import JobRow

log = logging.getLogger(__name__)

#: Reads of one round trip, and the events of one of them at most: 64 MiB where all were as large as they can be.
READS = 64
PAGE = 64
#: Seconds that the status of a job waits at most for its progress.
PATIENCE = 0.5

Entry = tuple[bytes, dict[bytes, bytes]]


class Page(NamedTuple):
    """Events of one attempt in their order, framed as they are sent; `last` is where they end, and there may be `more`
    behind."""

    frames: bytes
    last: Position
    more: bool


class _Ask(NamedTuple):
    """For the events behind a position, or for the newest of them alone."""

    job: UUID
    behind: Position
    newest: bool


class Streams:
    """Reads the streams of jobs, each once for all who ask for the same at the same time."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._asked: dict[_Ask, asyncio.Future[Sequence[Entry]]] = {}
        self._bell = asyncio.Event()

    async def after(self, job: UUID, position: Position) -> Page | None:
        """The next events behind `position`; None where there are none, or Redis does not answer."""
        return _page(await asyncio.shield(self._ask(_Ask(job, position, newest=False))))

    async def progress(self, job: JobRow) -> float | None:
        """The latest progress of a job that runs; None for others, and where it has told none."""
        if job.status is not Status.RUNNING:
            return None
        found = self._ask(_Ask(job.id, Position(job.attempt, 0), newest=True))
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for _, entry in await asyncio.shield(found):
                    return events.progress_of(entry)
        return None

    async def forget(self, job: UUID) -> None:
        """Delete a job's events; where Redis does not answer they go by their age."""
        try:
            await self._client.delete(events.key(job))
        except (RedisError, OSError) as error:
            log.warning("the events of a deleted job are kept for a while, Redis does not answer: %s", error)

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
            if ask.newest:
                pipeline.xrevrange(name, "+", behind, count=1)
            else:
                pipeline.xrange(name, behind, "+", count=PAGE)
        try:
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            log.warning("no events, Redis does not answer: %s", error)
            return [()] * len(asked)
        return [() if isinstance(each, Exception) else each for each in answers]


def frame(event: str, data: bytes, id: str) -> bytes:
    """One server-sent event (HTML Living Standard, 9.2). `data` is JSON: what ends a line to many a client, though not
    by the standard, stands in its strings alone and is escaped there."""
    for mark in ("\u0085", "\u2028", "\u2029"):
        data = data.replace(mark.encode(), b"\\u%04x" % ord(mark))
    lines = b"".join(b"data: %b\n" % line for line in data.splitlines())
    return b"id: %b\nevent: %b\n%b\n" % (id.encode(), event.encode(), lines)


def _page(entries: Sequence[Entry]) -> Page | None:
    if not entries:
        return None
    found = [(Position.parse(id.decode()), entry) for id, entry in entries]
    # A later attempt begins a page of its own: the job's status goes before it.
    of_one = [(position, entry) for position, entry in found if position.attempt == found[0][0].attempt]
    frames = [frame(*events.said_by(entry), str(position)) for position, entry in of_one]
    return Page(b"".join(frames), of_one[-1][0], len(of_one) < len(found) or len(found) == PAGE)
