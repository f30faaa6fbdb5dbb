"""What a worker fetches besides the messages that Celery brings: real Redis lists."""

import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis

from tests.local import Local
from tests.models import Echo
from tests.shelves import NO_ARTIFACTS, alone
from tundish import queue
from tundish.catalog import Served
from tundish.ids import new_uuid
from tundish.job import Priority
from workers.batch import AHEAD, Batcher, Limits, Target
from workers.consume import Consumers
from workers.ears import Ears
from workers.gpu import Cpu
from workers.intake import Intake, unpack
from workers.shelf import Shelf

BATCH = 4
#: What there is room for of a model whose batches take 0.1 s.
ROOM = 2 * BATCH


@pytest.fixture
def client(system: Local) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(system.ps()["valkey"]["url"]) as client:
        yield client


@pytest.fixture
def target(client: redis.Redis) -> Iterator[Target]:
    target = Target(f"echo-{uuid4().hex}", "1")
    yield target
    client.delete(*names(target))


def names(target: Target) -> list[str]:
    return [queue.Queue(target.model, target.version, priority).name for priority in Priority]


def intake_of(client: redis.Redis, target: Target) -> tuple[Intake, Batcher]:
    shelf = Shelf([Served(Echo)], Cpu(), NO_ARTIFACTS, alone(), host_budget=lambda: 0)
    shelf.fill()
    batcher = Batcher({target: Limits(BATCH, 0.0)})
    batcher.ran(target, AHEAD)
    return Intake(batcher, client, Consumers([target]), shelf), batcher


def send(client: redis.Redis, target: Target, priority: Priority, count: int) -> list[str]:
    """One job a message."""
    ids = [new_uuid() for _ in range(count)]
    for id in ids:
        queue.send(client, [(queue.Queue(target.model, target.version, priority), id)])
    return [id.hex for id in ids]


def test_all_lists_of_a_target_are_fetched_the_best_priority_first(client: redis.Redis, target: Target) -> None:
    sent = [send(client, target, priority, 2) for priority in reversed(Priority)]
    intake, batcher = intake_of(client, target)
    intake.fill(names(target))
    first = batcher.take(0.0, idle=True)
    assert first
    assert list(first.ids) == sent[-1] + sent[-2]
    second = batcher.take(0.0, idle=True)
    assert second
    assert list(second.ids) == sent[-3]


def test_no_more_is_fetched_than_there_is_room_for(client: redis.Redis, target: Target) -> None:
    low = send(client, target, Priority.LOW, ROOM)
    high = send(client, target, Priority.HIGH, 5)
    intake, batcher = intake_of(client, target)
    intake.fill(names(target))
    assert batcher.room(target) == 0
    assert client.llen(queue.Queue(target.model, target.version, Priority.LOW).name) == len(low) + len(high) - ROOM
    first = batcher.take(0.0, idle=True)
    assert first
    assert list(first.ids) == high[:BATCH]


def test_what_there_is_no_room_for_goes_back_in_front_of_its_list(client: redis.Redis, target: Target) -> None:
    """A message carries more jobs than this worker starts soon; others are idle."""
    here = queue.Queue(target.model, target.version, Priority.NORMAL)
    first, second = ([new_uuid() for _ in range(ROOM + BATCH)] for _ in range(2))
    for ids in (first, second):
        queue.send(client, [(here, id) for id in ids])
    sent_at = [queue.time_of(each) for each in client.lrange(here.name, 0, -1)]
    intake, batcher = intake_of(client, target)
    intake.ran(target, 90 * AHEAD)  # no message is taken whole any more
    intake.fill(names(target))
    left = client.lrange(here.name, 0, -1)
    assert [unpack(each).ids for each in left] == [
        tuple(id.hex for id in second),
        tuple(id.hex for id in first[BATCH:]),
    ]
    assert [queue.time_of(each) for each in left] == sent_at
    draft = batcher.take(0.0, idle=True)
    assert draft
    assert list(draft.ids) == [id.hex for id in first[:BATCH]]


def test_what_is_paused_meanwhile_is_left_where_it_is(client: redis.Redis, target: Target) -> None:
    sent = send(client, target, Priority.NORMAL, 2)
    intake, batcher = intake_of(client, target)
    intake.pause(frozenset({target}))
    filling = threading.Thread(target=intake.fill, args=(names(target),), daemon=True)
    filling.start()
    filling.join(10)
    assert not filling.is_alive()
    assert len(batcher) == 0
    left = client.lrange(queue.Queue(target.model, target.version, Priority.NORMAL).name, 0, -1)
    assert [unpack(each).ids for each in reversed(left)] == [(id,) for id in sent]


def test_what_a_worker_does_not_ask_for_does_not_make_it_deaf(
    client: redis.Redis, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake, _ = intake_of(client, target)
    monkeypatch.setattr(intake.consumers, "names", lambda: names(target))  # as Celery consumes them
    ears = Ears(client, intake, lambda: False)
    assert not ears._waiting()
    send(client, target, Priority.LOW, 1)
    assert ears._waiting()
    intake.hold_back(target, time.monotonic() + 3600)
    assert not ears._waiting()
