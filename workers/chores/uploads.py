"""Uploads: what has expired, and is read by no job any more, is deleted with its blob."""

from tundish import store
from tundish.blobs import upload_prefix
from workers.chores import Tools

EVERY = 60.0
PAGE = 100


def run(tools: Tools) -> int:
    with store.autocommit(tools.engine).connect() as connection, store.locked(connection, "uploads") as held:
        past = store.past_uploads(connection, limit=PAGE) if held else []
        for id, tenant in past:
            # The blob first: what is in the way then leaves the row, and is tried again.
            tools.blobs.delete_prefix(upload_prefix(tenant, id))
            store.delete_upload(connection, id)
        return len(past)
