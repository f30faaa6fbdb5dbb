"""Uploads: what has expired, and is read by no job any more, is deleted with its blob."""

from tundish import store
from tundish.blobs import upload_prefix
from workers.chores import Tools

EVERY = 60.0
#: A page: its blobs are deleted within one transaction.
PAGE = 20


def run(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        if not store.lock(connection, "uploads"):
            return 0
        past = store.past_uploads(connection, limit=PAGE)
        # The blobs first: what is in the way then leaves the row, and is tried again.
        for id, tenant in past:
            tools.blobs.delete_prefix(upload_prefix(tenant, id))
        if past:
            store.delete_uploads(connection, [id for id, _ in past])
    return len(past)
