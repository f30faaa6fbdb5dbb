"""Coalesced reads: the jobs that are asked for while a read is on its way are read together by the next one."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from api.patience import PATIENCE, no_database
from tundish import store
from tundish.errors import Unavailable

log = logging.getLogger(__name__)

#: Jobs of one read.
ROWS = 256

Key = tuple[UUID, int]
#: The job, None where the tenant has none such, or why nobody can tell.
Found = store.JobRow | Unavailable | None
Then = Callable[[Found], None]


@dataclass(slots=True)
class _Asked:
    """Who waits for a job, and until when by the loop's clock."""

    then: Then
    until: float


class Reads:
    """Reads jobs by (id, tenant), each once for all who ask at the same time."""

    def __init__(self, engine: store.AsyncEngine) -> None:
        self._kept = store.AsyncKept(engine)
        self._asked: dict[Key, list[_Asked]] = {}
        self._reading: dict[Key, list[_Asked]] = {}
        self._bell = asyncio.Event()
        self._look: asyncio.TimerHandle | None = None

    async def get(self, id: UUID, tenant: int) -> store.JobRow | None:
        """The job as it is after this call began; None where the tenant has none such. Raises Unavailable."""
        found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self.ask(id, tenant, lambda job: None if found.done() else found.set_result(job))
        return told(await found)

    def ask(self, id: UUID, tenant: int, then: Then) -> None:
        """The same without a task: `then` is called once, after PATIENCE seconds at the latest."""
        loop = asyncio.get_running_loop()
        # One timer for all who wait, and no future: with those each, a status took 9 % more.
        if self._look is None:
            self._look = loop.call_later(PATIENCE, self._give_up)
        self._asked.setdefault((id, tenant), []).append(_Asked(then, loop.time() + PATIENCE))
        self._bell.set()

    async def close(self) -> None:
        """Give back what is kept, once nothing runs."""
        if self._look:
            self._look.cancel()
        await self._kept.close()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            while not self._asked:
                self._bell.clear()
                await self._bell.wait()
            # Taken out before the read: who asks from now on must see what happens from now on.
            pairs = list(self._asked.items())
            self._reading, self._asked = dict(pairs[:ROWS]), dict(pairs[ROWS:])
            jobs: dict[Key, store.JobRow] = {}
            away = None
            try:
                jobs = await self._kept.run(store.read, list(self._reading))
            except Exception as error:
                log.warning("a read failed: %s", error)
                away = no_database()
            read, self._reading = self._reading, {}
            for key, waiting in read.items():
                _tell(waiting, away or jobs.get(key))

    def _give_up(self) -> None:
        """On those who have waited too long, and look again when the next one will have."""
        loop = asyncio.get_running_loop()
        now, overdue, rest = loop.time(), list[_Asked](), list[float]()
        for waiting in (*self._reading.values(), *self._asked.values()):
            overdue += [each for each in waiting if each.until <= now]
            waiting[:] = [each for each in waiting if each.until > now]
            rest += [each.until for each in waiting]
        self._asked = {key: waiting for key, waiting in self._asked.items() if waiting}
        self._look = loop.call_at(min(rest), self._give_up) if rest else None
        _tell(overdue, no_database())


def told(found: Found) -> store.JobRow | None:
    """Raises Unavailable where that was found."""
    if isinstance(found, Unavailable):
        raise found
    return found


def _tell(waiting: Iterable[_Asked], found: Found) -> None:
    for each in waiting:
        try:
            each.then(found)
        except Exception:  # his request fails, and no other
            log.exception("an answer that was read cannot be given")
