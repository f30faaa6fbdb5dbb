"""Group commit: while one flush is on its way to Postgres the next jobs gather, and then go in one statement.

A lone job is not held back. A caller who hangs up does not cancel the flush that carries his job.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from api.patience import answered, no_database
from api.sender import Sender
from tundish import queue, store
from tundish.errors import Unavailable

log = logging.getLogger(__name__)

#: Rows of a flush (256 to 512 measured best).
ROWS = 512
#: Rows, and bytes of their inputs, that may wait for their flush; beyond either a submit is answered with 503, not with
#: a slow death.
WAITING = 50_000
WAITING_BYTES = 256 * 1024 * 1024
#: Seconds that Redis has to take the messages of a flush, for the next one waits.
TELL = 1.0


@dataclass(slots=True)
class _Group:
    """Jobs that are stored together or not at all."""

    jobs: Sequence[store.NewJob]
    bytes: int
    stored: asyncio.Future[datetime]


class Flush:
    """Stores jobs, then sends their messages. `alone`: each job must run in a batch of its own."""

    def __init__(self, engine: store.AsyncEngine, sender: Sender, alone: bool = False) -> None:
        self._kept = store.AsyncKept(engine)
        self._sender = sender
        self._alone = alone
        self._groups: deque[_Group] = deque()
        self._waiting = 0
        self._waiting_bytes = 0
        self._bell = asyncio.Event()

    async def submit(self, jobs: Sequence[store.NewJob]) -> datetime:
        """Store jobs, all or none; the database's time of it. They are durable when this returns. Raises Unavailable
        where too many wait already, or Postgres does not answer."""
        if not jobs:
            return datetime.now(UTC)
        size = sum(len(job.body) for job in jobs if job.body is not None)
        if self._waiting and (self._waiting + len(jobs) > WAITING or self._waiting_bytes + size > WAITING_BYTES):
            raise Unavailable("overloaded", "too many jobs are being submitted; try again", retry_after=1)
        group = _Group(jobs, size, asyncio.get_running_loop().create_future())
        self._waiting += len(jobs)
        self._waiting_bytes += size
        self._groups.append(group)
        self._bell.set()
        return await answered(group.stored)

    async def close(self) -> None:
        """Let go of what it holds, once nothing runs."""
        await self._kept.close()
        await self._sender.close()

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            await self._bell.wait()
            groups = self._gather()
            # What is not on its way yet is not stored after its answer.
            wanted = [group for group in groups if not group.stored.done()]
            try:
                stored = await self._store(wanted) if wanted else []
            except Exception:
                # Nobody may wait for an answer that does not come.
                log.exception("a flush failed")
                stored = self._fail(wanted, Unavailable("unavailable", "the jobs could not be stored", retry_after=2))
            self._waiting -= sum(len(group.jobs) for group in groups)
            self._waiting_bytes -= sum(group.bytes for group in groups)
            if stored:
                jobs = [job for group, _ in stored for job in group.jobs]
                await self.send(jobs, min(at for _, at in stored))

    def _gather(self) -> list[_Group]:
        """The next groups of up to ROWS jobs together, at least one group."""
        groups = [self._groups.popleft()]
        rows = len(groups[0].jobs)
        while self._groups and rows + len(self._groups[0].jobs) <= ROWS:
            groups.append(self._groups.popleft())
            rows += len(groups[-1].jobs)
        if not self._groups:
            self._bell.clear()
        return groups

    async def _store(self, groups: list[_Group]) -> list[tuple[_Group, datetime]]:
        """The groups that are in Postgres now, with its time of it. One group's bad row must not fail its neighbours:
        each is then tried by itself."""
        try:
            at = await self._kept.run(store.submit, [job for group in groups for job in group.jobs])
        except (store.RowError, store.TooOld) as error:
            if len(groups) > 1:
                return [stored for each in groups for stored in await self._store([each])]
            log.error("a job cannot be stored: %s", error)
            return self._fail(groups, Unavailable("unavailable", "the job could not be stored", retry_after=1))
        except store.AWAY as error:
            log.warning("Postgres does not take jobs: %s", error)
            return self._fail(groups, no_database())
        for group in groups:
            if not group.stored.done():
                group.stored.set_result(at)
        return [(group, at) for group in groups]

    @staticmethod
    def _fail(groups: list[_Group], why: Unavailable) -> list[tuple[_Group, datetime]]:
        for group in groups:
            if not group.stored.done():
                group.stored.set_exception(why)
        return []

    async def send(self, jobs: Sequence[store.NewJob], at: datetime) -> None:
        """Tell the workers of jobs that were stored `at` that time of the database's, and of their shadows. What Redis
        does not take, a chore sends again: the jobs are safe."""
        sent = ((job.queue, job.id) for job in store.with_shadows(jobs))
        try:
            async with asyncio.timeout(TELL):
                await self._sender.push(queue.bundles(sent, self._alone, at.timestamp()))
        except Exception as error:  # a cut connection shows as almost anything, RuntimeError of the event loop too
            log.warning("%d jobs wait for the next sweep, Redis did not take their messages: %r", len(jobs), error)
