"""Bury: webhooks that waited for days for their turn, for their receiver fails or keeps asking to wait, become dead
letters."""

from tundish import store
from workers.chores import Tools
from workers.settle import attempt
from workers.verdict import Answer

EVERY = 60.0

_GIVEN_UP = Answer(
    None, f"given up after {store.LIFE.days} days: the receiver took too little for its turn to come, or asked to wait"
)


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if not store.lock(connection, "bury"):
            return 0
        return store.bury(connection, attempt(store.clock(connection), _GIVEN_UP))
