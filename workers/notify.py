"""Notify: after the commit. Redis only wakes who waits; a slow poll finds what it forgets."""

import logging
from collections.abc import Sequence
from uuid import UUID

import redis

from tundish import queue

log = logging.getLogger(__name__)


def notify(client: redis.Redis, ids: Sequence[UUID]) -> None:
    """Wake the long polls of finished jobs."""
    if not ids:
        return
    try:
        client.publish(queue.DONE, b"".join(id.bytes for id in ids))
    except redis.RedisError as error:
        log.warning("finished jobs were not announced, their long polls wake later: %s", error)
