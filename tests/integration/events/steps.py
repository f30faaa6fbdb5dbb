"""What a job's stream holds, and what is told of jobs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import redis

from tests.local import wait_until
from tundish import events


def stored(client: redis.Redis, job: UUID) -> list[tuple[str, str, Any]]:
    entries: Any = client.xrange(events.key(job))
    said = [(id.decode(), *events.said_by(entry)) for id, entry in entries]
    return [(id, kind, json.loads(data)) for id, kind, data in said]


@contextmanager
def heard(client: redis.Redis, channel: str) -> Iterator[Callable[[], set[UUID]]]:
    """What is told on a channel; a call waits for the next message."""
    with client.pubsub() as subscription:  # type: ignore[no-untyped-call]  # redis leaves it untyped
        subscription.subscribe(channel)
        wait_until(lambda: subscription.get_message(timeout=1), "the subscription")

        def next_ids() -> set[UUID]:
            data = wait_until(lambda: subscription.get_message(timeout=1), "a message")["data"]
            return {UUID(bytes=data[at : at + 16]) for at in range(0, len(data), 16)}

        yield next_ids
