"""Bury: webhooks that waited for days and never had their turn, for their receiver fails, become dead letters."""

from tundish import store
from workers.chores import Tools

EVERY = 60.0


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if not store.lock(connection, "bury"):
            return 0
        return store.bury(connection, "given up: the receiver took nothing of what waited before it, for 4 days")
