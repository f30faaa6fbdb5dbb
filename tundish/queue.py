"""The messages between API and workers: Redis lists that a stock Celery worker consumes.

A message carries ids only and is a hint: running a job needs a claim in Postgres, so duplicates are harmless and
what Redis loses is sent again by a chore. The envelope is Celery's message protocol 2, built by hand because one
multi-value LPUSH for a flush gave 92k messages a second against 2k of `send_task`.
"""

import base64
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

from tundish.ids import new_uuid
from tundish.job import Priority

if TYPE_CHECKING:
    import redis

#: The Celery task that takes the messages.
TASK = "tundish.run"
#: Redis pub/sub channel on which the ids of finished jobs wake who waits for them.
DONE = "tundish:done"
#: Channel that tells the courier of webhooks at the end of jobs; others it finds by its next look.
OUTBOX = "tundish:outbox"
#: Channel that tells of a change to aliases or pauses: whoever holds a copy of the catalog reads it anew.
CATALOG = "tundish:catalog"
#: Ids of one queue that arrive together share a message, up to this many (measured: 64 gave 1.7 times 8's rate).
BUNDLE = 64

_HEX = re.compile("[0-9a-f]*")
_NAME = re.compile("tundish:([^:@]+)@([^:@]+):(0|[1-9][0-9]*):(high|normal|low)")


@dataclass(frozen=True, slots=True)
class Queue:
    """One list in Redis: a model version's jobs of one priority and one lane of tenants."""

    model: str
    version: str
    priority: Priority
    lane: int = 0

    @property
    def name(self) -> str:
        return f"tundish:{self.model}@{self.version}:{self.lane}:{self.priority.name.lower()}"

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, name: str) -> "Queue | None":
        """The queue of a name; None where it is none of ours."""
        if not (found := _NAME.fullmatch(name)):
            return None
        model, version, lane, priority = found.groups()
        return cls(model, version, Priority[priority.upper()], int(lane))


@dataclass(frozen=True, slots=True)
class Message:
    """What one message says: ids of jobs as 32 hexadecimal digits, for nobody between Redis and Postgres needs more (a
    UUID a job took a quarter of a worker's time). `alone`: each must run in a batch of its own. `sent`: when, in
    seconds since 1970, as the jobs' rows say it, so that a sweep may compare the two; 0 is now."""

    ids: tuple[str, ...]
    alone: bool = False
    sent: float = 0.0


def bundled(ids: Sequence[str], alone: bool = False, sent: float = 0.0) -> list[Message]:
    """The messages that carry these jobs."""
    size = 1 if alone else BUNDLE
    return [Message(tuple(ids[at : at + size]), alone, sent) for at in range(0, len(ids), size)]


def bundles(jobs: Iterable[tuple[Queue, UUID]], alone: bool = False, sent: float = 0.0) -> dict[str, list[bytes]]:
    """Encoded messages by the name of their list, in the order of the jobs."""
    grouped: dict[Queue, list[str]] = {}
    for queue, id in jobs:
        grouped.setdefault(queue, []).append(id.hex)
    return {queue.name: [encode(queue, each) for each in bundled(ids, alone, sent)] for queue, ids in grouped.items()}


def send(client: "redis.Redis", jobs: Iterable[tuple[Queue, UUID]], alone: bool = False, sent: float = 0.0) -> None:
    """Push the messages of jobs behind all that waits, all lists in one round trip. Raises redis.RedisError."""
    pipeline = client.pipeline(transaction=False)
    for name, messages in bundles(jobs, alone, sent).items():
        pipeline.lpush(name, *messages)
    pipeline.execute()


def put_back(client: "redis.Redis", queue: Queue, messages: Sequence[Message]) -> None:
    """Push messages of one queue in front of all that waits, as if they had never been taken. Raises
    redis.RedisError."""
    client.rpush(queue.name, *(encode(queue, each) for each in reversed(messages)))


def encode(queue: Queue, message: Message) -> bytes:
    """A Celery protocol 2 message in kombu's envelope for Redis."""
    id = str(new_uuid())
    sent = message.sent or time.time()
    arguments = [[message.ids, message.alone], {}, {}]
    body = base64.b64encode(json.dumps(arguments, separators=(",", ":")).encode()).decode()
    return (
        f'{{"body":"{body}","content-encoding":"utf-8","content-type":"application/json",'
        f'"headers":{{"lang":"py","task":"{TASK}","id":"{id}","root_id":"{id}","parent_id":null,"group":null,'
        f'"sent":{sent:.3f}}},'
        f'"properties":{{"correlation_id":"{id}","delivery_mode":2,"delivery_tag":"{id}","priority":0,'
        f'"delivery_info":{{"exchange":"","routing_key":"{queue.name}"}},"body_encoding":"base64"}}}}'
    ).encode()


def decode(arguments: Sequence[object], sent: object = 0.0) -> Message:
    """The message of a Celery task's arguments, and of what its header says of its time. Raises ValueError where they
    are not ours."""
    match arguments:
        case [[*ids], bool(alone)]:
            digits = tuple([id for id in ids if isinstance(id, str) and len(id) == 32])
            if len(digits) == len(ids) and _HEX.fullmatch("".join(digits)):
                return Message(digits, alone, sent if isinstance(sent, float) else 0.0)
    raise ValueError(f"not a message of {TASK}: {arguments!r}")


def time_of(envelope: bytes | str) -> datetime:
    """When an encoded message was sent, as it says; the end of all time where it says nothing."""
    try:
        return datetime.fromtimestamp(json.loads(envelope)["headers"]["sent"], UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)
