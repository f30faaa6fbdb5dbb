"""Coalesced reads: the jobs that are asked for while a read is on its way are read together by the next one."""

import asyncio
import logging
from uuid import UUID

from api.patience import answered
from tundish import store
from tundish.errors import Unavailable

log = logging.getLogger(__name__)

#: Jobs of one read.
ROWS = 256

Key = tuple[UUID, int]


class Reads:
    """Reads jobs by (id, tenant), each once for all who ask at the same time."""

    def __init__(self, engine: store.AsyncEngine) -> None:
        self._kept = store.AsyncKept(engine)
        self._asked: dict[Key, list[asyncio.Future[store.JobRow | None]]] = {}
        self._bell = asyncio.Event()

    async def get(self, id: UUID, tenant: int) -> store.JobRow | None:
        """The job as it is after this call began; None where the tenant has none such. Raises Unavailable."""
        return await answered(self.ask(id, tenant))

    def ask(self, id: UUID, tenant: int) -> asyncio.Future[store.JobRow | None]:
        """The same as a future, which the caller bounds."""
        found: asyncio.Future[store.JobRow | None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault((id, tenant), []).append(found)
        self._bell.set()
        return found

    async def close(self) -> None:
        """Give back what is kept, once nothing runs."""
        await self._kept.close()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self._bell.wait()
            # Taken out before the read: who asks from now on must see what happens from now on.
            pairs = list(self._asked.items())
            asked, self._asked = pairs[:ROWS], dict(pairs[ROWS:])
            if not self._asked:
                self._bell.clear()
            try:
                jobs = await self._kept.run(store.read, [key for key, _ in asked])
            except Exception as error:
                log.warning("a read failed: %s", error)
                away = Unavailable("unavailable", "the database does not answer; try again", retry_after=2)
                for _, waiting in asked:
                    for future in waiting:
                        if not future.done():
                            future.set_exception(away)
            else:
                for key, waiting in asked:
                    for future in waiting:
                        if not future.done():
                            future.set_result(jobs.get(key))
