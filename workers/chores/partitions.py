"""Partitions: the days ahead, made before they are needed, or soon where they are gone, as from a Postgres that was
restored from an old copy."""

from tundish import store
from workers.chores import Tools, survey

EVERY = 10.0


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if store.lock(connection, "partitions"):
            # No day that retention may have dropped.
            store.make_partitions(connection, lag=survey.SETTLED)
    return 0
