"""Marks: raise the low-water marks, so that no sweep reads what has long ended."""

from datetime import timedelta

from tundish import store
from tundish.ids import floor_uuid
from workers.chores import Tools

EVERY = 15.0

#: A submit is committed, or has failed, this long after its id was made, by the database's clock: a statement that
#: begins within `ID_AGE` seconds of it ends within 8 more.
SETTLED = timedelta(minutes=2)


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if store.lock(connection, "marks"):
            store.advance_marks(connection, floor_uuid(store.clock(connection) - SETTLED))
    return 0
