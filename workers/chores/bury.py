"""Bury: webhooks that waited for days for their turn, for their receiver fails or keeps asking to wait, become dead
letters."""

from tundish import store
from workers.chores import Tools

EVERY = 60.0


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if not store.lock(connection, "bury"):
            return 0
        return store.bury(
            connection, "given up after 4 days: the receiver took too little for its turn to come, or asked to wait"
        )
