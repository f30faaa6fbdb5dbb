"""Uploads: what has expired, and is read by no job any more, is deleted with its blob."""

from tundish import store
from tundish.blobs import upload_prefix
from workers.chores import Tools
from workers.clear import clear

EVERY = 60.0
PAGE = 100


def run(tools: Tools) -> int:
    with store.autocommit(tools.engine).connect() as connection, store.locked(connection, "uploads") as held:
        past = store.past_uploads(connection, limit=PAGE) if held else []
        # The blob first: what is in the way then leaves the row, and is tried again.
        bare = [id for id, tenant in past if clear(tools, upload_prefix(tenant, id))]
        for id in bare:
            store.delete_upload(connection, id)
        return len(bare)
