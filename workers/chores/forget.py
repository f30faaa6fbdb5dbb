"""Forget: workers that have not been seen for a day, and the answers of idempotency keys after their jobs."""

from tundish import store
from workers.chores import Tools

EVERY = 600.0
#: Seconds that an answer is kept at least.
ANSWERS = 86400.0


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if not store.lock(connection, "forget"):
            return 0
        store.forget_workers(connection)
        return store.forget_answers(connection, max(ANSWERS, tools.settings.retention))
