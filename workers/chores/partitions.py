"""Partitions: the days ahead, made before they are needed."""

from tundish import store
from workers.chores import Tools

EVERY = 3600.0


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if store.lock(connection, "partitions"):
            store.make_partitions(connection)
    return 0
