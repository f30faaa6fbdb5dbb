"""Expire: jobs that waited longer for their start than they were allowed to."""

from tundish import store
from tundish.job import Code, error_json
from tundish.outbox import announce
from workers.chores import Tools
from workers.notify import notify

EVERY = 1.0


def run(tools: Tools) -> int:
    error = error_json(Code.EXPIRED, "the job waited longer than its expires_in; submit it again when workers are free")
    with tools.engine.begin() as connection:
        if not store.lock(connection, "marks"):
            return 0
        expired = store.expire(connection, error)
        announce(connection, expired, tools.settings.public_url)
    notify(tools.client, [id for id, _ in expired])
    return len(expired)
