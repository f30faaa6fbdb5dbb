"""Reap: jobs of workers that stopped beating go back to their queues, or are quarantined after the last attempt."""

from tundish import store
from tundish.job import Code, error_json
from tundish.outbox import announce
from workers.chores import Tools
from workers.notify import notify
from workers.resend import resend

EVERY = 2.0


def run(tools: Tools) -> int:
    limit = tools.settings.max_attempts
    judgement = store.Judgement(
        limit,
        lost=error_json(Code.WORKER_LOST, f"{limit} workers died while they ran this job; it is not tried again"),
        timeout=error_json(Code.TIMEOUT, "predict did not come back in its time-out for this item alone"),
    )
    with tools.engine.begin() as connection:
        if not store.lock(connection, "reap"):
            return 0
        reaped = store.reap(connection, judgement)
        announce(connection, reaped.ended, tools.settings.public_url)
    notify(tools.client, [id for id, _ in reaped.ended])
    resend(tools.client, reaped.unsent, limit)
    return len(reaped.unsent) + len(reaped.ended)
