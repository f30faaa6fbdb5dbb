"""Notify: after the commit. Redis only wakes who waits, and the courier; a slow look finds what it forgets."""

import logging
from collections.abc import Sequence
from uuid import UUID

import redis

from tundish import queue

log = logging.getLogger(__name__)


def notify(client: redis.Redis, ids: Sequence[UUID], *, webhooks: bool = True) -> None:
    """Wake the long polls of finished jobs; and the courier, where there may be `webhooks` of them."""
    if not ids:
        return
    try:
        client.publish(queue.DONE, b"".join(id.bytes for id in ids))
        if webhooks:
            client.publish(queue.OUTBOX, b"")
    except redis.RedisError as error:
        log.warning("finished jobs were not announced, their long polls and webhooks wait for a look: %s", error)
