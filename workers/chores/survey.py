"""Survey: a look at the jobs that have not ended. It raises the low-water marks, so that no sweep reads what has long
ended; notes when the next job expires; and sends queued jobs again whose message Redis has lost, or whose worker died
between the pop and the claim.

A message is lost when it was sent before the oldest of those that wait in front of its list: a backlog that is merely
long is not sent again. Nor is it looked at each time: no job is added to what is older than SETTLED.
"""

import time
from datetime import datetime, timedelta

from tundish import queue, store
from tundish.ids import floor_uuid
from workers.chores import Tools
from workers.resend import resend

EVERY = 5.0

#: A submit is committed, or has failed, this long after its id was made, by the database's clock: its statement begins
#: within `ID_AGE` seconds of it and ends within 8, and the commit, within 15 more, within 8 again.
SETTLED = timedelta(seconds=130)
#: Seconds between looks at all that has not ended, and not only at what was not settled at the last look; or so many
#: times as long as one takes.
WHOLE, REST = 60.0, 20.0
#: How long a message may be on its way; with EVERY, a lost one is back within 10 s.
GRACE = timedelta(seconds=5)
#: Messages in front of a list that are looked at: what several workers put back at once lies there in any order.
FRONT = 64
#: Between the times of a row, which its message says, and of the message's arrival.
SKEW = timedelta(seconds=2)
#: How far the clock of an API may go ahead: what it submits is looked for later by as much as it is further.
AHEAD = timedelta(minutes=2)


class Survey:
    """What one process remembers of its looks, each of which begins where the last one ended, so that none leaves an
    open job out. Others may look in between: the marks are right for all."""

    def __init__(self) -> None:
        self._settled = store.FIRST
        self._whole_at = 0.0

    def run(self, tools: Tools) -> int:
        began = time.monotonic()
        whole = began >= self._whole_at
        if whole:  # one that fails must not keep the others from being made
            self._whole_at = began + WHOLE
        with tools.engine.begin() as connection:
            if not store.lock(connection, "marks"):
                return 0
            now = store.clock(connection)
            settled = floor_uuid(now - SETTLED)
            found = store.survey(connection, settled, since=store.FIRST if whole else self._settled)
        self._settled = settled
        if whole:
            self._whole_at = max(self._whole_at, began + REST * (time.monotonic() - began))
        return sum(_resend_lost(tools, source, seen, now - GRACE) for source, seen in found.items())


def _resend_lost(tools: Tools, source: queue.Queue, seen: store.Surveyed, before: datetime) -> int:
    """How many of a queue's messages that were sent before that moment were lost."""
    if not seen.sent_at or seen.sent_at >= before:
        return 0
    high = store.LAST
    if front := tools.client.lrange(source.name, -FRONT, -1):
        before = min(before, min(map(queue.time_of, front)) - SKEW)
        high = floor_uuid(before + AHEAD)
    if seen.sent_at >= before:
        return 0
    with tools.engine.begin() as connection:
        if not store.lock(connection, "resend"):
            return 0
        lost = store.unsent(connection, source, low=seen.low, high=high, before=before)
        resend(tools.client, lost, tools.settings.max_attempts)
        return len(lost)


run = Survey().run
