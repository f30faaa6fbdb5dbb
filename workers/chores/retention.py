"""Retention: ended jobs past TUNDISH_RETENTION go, with their blobs."""

from datetime import UTC, datetime, timedelta

from tundish import store
from tundish.blobs import job_prefix
from tundish.ids import floor_uuid
from workers.chores import Tools

EVERY = 60.0


def run(tools: Tools) -> int:
    below = floor_uuid(datetime.now(UTC) - timedelta(seconds=tools.settings.retention))
    with tools.engine.begin() as connection:
        if not store.lock(connection, "retention"):
            return 0
        gone = store.past_retention(connection, below)
        for id, tenant in gone:
            tools.blobs.delete_prefix(job_prefix(tenant, id))
    return len(gone)
