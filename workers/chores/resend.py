"""Resend: queued jobs whose message Redis has lost, or whose worker died between the pop and the claim.

A message is lost when it was sent before the oldest one that still waits in its list: a backlog that is merely long
is not sent again.
"""

from tundish import queue, store
from workers.chores import Tools
from workers.resend import resend

EVERY = 5.0

#: Seconds that a message may be on its way; with EVERY, a lost one is back within 10 s.
GRACE = 5.0
#: Seconds between a row's commit and its message, and between the clocks of API and database.
SKEW = 2.0


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if not store.lock(connection, "resend"):
            return 0
        lost: list[store.Unsent] = []
        for each in store.queues(connection):
            oldest = tools.client.lindex(each.name, -1)
            before = queue.sent_at(oldest) - SKEW if oldest else float("inf")
            lost += store.unsent(connection, each, before=before, older_than=GRACE)
        resend(tools.client, lost, tools.settings.max_attempts)
        return len(lost)
