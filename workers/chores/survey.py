"""Survey: a look at the jobs that have not ended. It raises the low-water marks, so that no sweep reads what has long
ended; notes when the next job expires; and sends queued jobs again whose message Redis has lost, or whose worker died
between the pop and the claim.

A message is lost when it was sent before the oldest one that still waits in its list: a backlog that is merely long is
not sent again. Nor is it looked at each time: what is older than two minutes changes in one way alone, it ends.
"""

import time
from datetime import datetime, timedelta

from tundish import queue, store
from tundish.ids import floor_uuid
from workers.chores import Tools
from workers.resend import resend

EVERY = 5.0

#: A submit is committed, or has failed, this long after its id was made, by the database's clock: a statement that
#: begins within `ID_AGE` seconds of it ends within 8 more.
SETTLED = timedelta(minutes=2)
#: Seconds after which all that has not ended is looked at, and not only what was not settled at the last look.
WHOLE = 60.0
#: How long a message may be on its way; with EVERY, a lost one is back within 10 s.
GRACE = timedelta(seconds=5)
#: Between a row's commit and its message, and between the clocks of API and database.
SKEW = timedelta(seconds=2)


class Survey:
    def __init__(self) -> None:
        self._settled = store.FIRST
        self._whole_at = 0.0

    def run(self, tools: Tools) -> int:
        with tools.engine.begin() as connection:
            if not store.lock(connection, "survey"):
                return 0
            now = store.clock(connection)
            settled, whole = floor_uuid(now - SETTLED), time.monotonic() >= self._whole_at
            found = store.survey(connection, settled, since=store.FIRST if whole else self._settled)
            lost = [
                job
                for each, seen in found.items()
                if seen.sent_at and seen.sent_at < now - GRACE
                for job in self._lost(tools, connection, each, seen.sent_at, now)
            ]
            resend(tools.client, lost, tools.settings.max_attempts)
        self._settled = settled
        if whole:
            self._whole_at = time.monotonic() + WHOLE
        return len(lost)

    @staticmethod
    def _lost(
        tools: Tools, connection: store.Connection, source: queue.Queue, sent_at: datetime, now: datetime
    ) -> list[store.Unsent]:
        """Those of one queue, the first of whose messages was sent at that moment."""
        oldest = tools.client.lindex(source.name, -1)
        if not oldest:
            return store.unsent(connection, source, before=now - GRACE)
        before = min(now - GRACE, queue.sent_at(oldest) - SKEW)
        if sent_at >= before:
            return []
        return store.unsent(connection, source, before=before, under=floor_uuid(before + SETTLED))
