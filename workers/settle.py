"""Settle: what came of deliveries is written down by the hundred; what gathers while one write is on its way goes with
the next."""

import asyncio
import json
import logging
from datetime import datetime

from tundish import logs, store
from tundish.view import rfc3339
from workers.verdict import Answer

log = logging.getLogger(__name__)

#: Deliveries that one statement settles.
ROWS = 256
#: Seconds to wait for company: nobody waits for this, and a statement for each delivery would cost more than its POST.
GATHER = 0.03
#: Seconds between tries while Postgres does not answer, and how many: then others have taken what is not settled.
RETRY, TRIES = 1.0, 30


def attempt(at: datetime, answer: Answer, took: float = 0.0) -> str:
    """A try as the log has it, in JSON: it took so many seconds."""
    told = {"at": rfc3339(at), "status_code": answer.status_code, "error": answer.error, "ms": round(took * 1000)}
    return json.dumps(told)


class Settler:
    """Writes what it is given, in turn."""

    def __init__(self, engine: store.AsyncEngine) -> None:
        self._engine = engine
        self._waiting: list[store.Settled] = []
        self._gone: set[store.Gone] = set()
        self._bell = asyncio.Event()
        self._outage = logs.Outage(log)

    def add(self, settled: store.Settled, gone: store.Gone | None = None) -> None:
        """Write this down soon; `gone` is an endpoint to disable."""
        self._waiting.append(settled)
        if gone:
            self._gone.add(gone)
        self._bell.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._bell.wait()
            await asyncio.sleep(GATHER)
            await self.write()

    async def write(self) -> None:
        """Write all that waits now."""
        self._bell.clear()
        while self._waiting:
            page, gone = self._waiting[:ROWS], set(self._gone)
            await self._keep(page, gone)
            # Only now: a write that is cancelled half way is made again by the last one.
            del self._waiting[: len(page)]
            self._gone -= gone

    async def _keep(self, page: list[store.Settled], gone: set[store.Gone]) -> None:
        for _ in range(TRIES):
            try:
                await store.run(self._engine, _settle, page, gone)
            except store.AWAY as error:
                self._outage.waits("what came of deliveries", error)
                await asyncio.sleep(RETRY)
            else:
                self._outage.over("what came of deliveries")
                return
        log.error("%d deliveries will be sent again: what came of them could not be written down", len(page))


def _settle(connection: store.Connection, page: list[store.Settled], gone: set[store.Gone]) -> None:
    store.settle(connection, page)
    if gone:
        store.disable_endpoints(connection, gone)
