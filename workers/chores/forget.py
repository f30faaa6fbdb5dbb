"""Forget: workers that have not been seen for a day leave the catalog."""

from tundish import store
from workers.chores import Tools

EVERY = 600.0
UNSEEN = 86400.0


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if store.lock(connection, "forget"):
            store.forget_workers(connection, UNSEEN)
    return 0
