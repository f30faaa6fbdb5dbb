"""The intake between Celery's thread and the one that claims: every message that Celery delivers is acknowledged, for
one that is not fills its window, and nothing comes any more."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from celery import Celery, Task

from tests.local import wait_until
from tests.models import Echo
from tests.shelves import NO_ARTIFACTS, alone
from tundish import queue
from tundish.catalog import Served
from tundish.ids import new_uuid
from tundish.job import Priority
from workers.batch import Batcher, Draft, Limits, Target
from workers.consume import Consumers
from workers.gpu import Cpu
from workers.intake import Intake, strategy
from workers.shelf import Shelf
from workers.stock import Stock

ECHO = Target("echo", "1")
PATIENCE = 10.0


class Delivered:
    """A message as Celery hands it over."""

    def __init__(self, ids: list[str]) -> None:
        self.delivery_info = {"routing_key": queue.Queue("echo", "1", Priority.NORMAL).name}
        self.payload = [[ids, False]]
        self.headers = {"sent": 0.0}
        self.acknowledged = threading.Event()

    def ack_log_error(self, *_: object) -> None:
        self.acknowledged.set()


class Side:
    """Celery's side of an intake, and a thread that takes its batches."""

    def __init__(self, intake: Intake, idle: bool = True) -> None:
        self._idle = idle
        consumer = SimpleNamespace(
            hub=SimpleNamespace(call_soon=lambda call: call()), connection_errors=(), task_consumer=None, app=None
        )
        consumer.app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=[])))
        start = strategy(intake)(cast("Task[Any, Any]", None), cast(Celery, None), consumer)
        self._start = start
        self.took = threading.Semaphore(0)
        self._intake = intake
        threading.Thread(target=self._take, daemon=True).start()

    def deliver(self, message: Delivered) -> None:
        self._start(message, None, None, None, None)

    def _take(self) -> None:
        while self._intake.take(lambda: self._idle, lambda: True):
            self.took.release()


@pytest.fixture
def intake() -> Iterator[Intake]:
    shelf = Shelf([Served(Echo)], Cpu(), NO_ARTIFACTS, alone(), host_budget=lambda: 0)
    shelf.fill()
    batcher = Batcher({ECHO: Limits(4, 0.0)})
    intake = Intake(batcher, redis.Redis(unix_socket_path="/nowhere"), Consumers([ECHO]), shelf)
    intake.ran(ECHO, 0.001)
    yield intake
    intake.close()


def test_a_message_whose_jobs_are_taken_at_once_is_acknowledged(intake: Intake, monkeypatch: Any) -> None:
    side = Side(intake)
    put = intake.put

    def taken_before_it_is_back(*given: Any) -> list[queue.Message]:
        left = put(*given)
        intake.ring()
        assert side.took.acquire(timeout=PATIENCE)
        return left

    monkeypatch.setattr(intake, "put", taken_before_it_is_back)
    message = Delivered([new_uuid().hex])
    side.deliver(message)
    assert message.acknowledged.wait(PATIENCE)


def test_a_message_of_no_jobs_is_acknowledged(intake: Intake) -> None:
    message = Delivered([])
    Side(intake).deliver(message)
    assert message.acknowledged.wait(PATIENCE)


@pytest.mark.parametrize("idle", [True, False])
def test_redis_is_asked_for_more_unless_what_came_runs_at_once(intake: Intake, monkeypatch: Any, idle: bool) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(intake, "fill", asked.append)
    side = Side(intake, idle)
    wait_until(lambda: intake.silent > 0, "a batch is waited for")
    intake.ring()  # it has the lock until it waits
    assert intake.eager(ECHO) == idle
    message = Delivered([new_uuid().hex])
    side.deliver(message)
    assert len(asked) == (0 if idle else 1)
    intake.ring()
    assert side.took.acquire(timeout=PATIENCE)
    assert message.acknowledged.wait(PATIENCE)


def looked(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released whenever who takes batches has looked for one and found none."""
    looks, due_at = threading.Semaphore(0), intake._batcher.due_at

    def look(*given: Any) -> float | None:
        looks.release()
        return due_at(*given)

    monkeypatch.setattr(intake._batcher, "due_at", look)
    return looks


def test_what_waits_keeps_the_next_message_in_redis(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "fill", lambda names: intake.ring())
    intake._batcher.serve({ECHO: Limits(4, 3600.0)})
    looks, side = looked(intake, monkeypatch), Side(intake, idle=False)
    assert looks.acquire(timeout=PATIENCE)
    first, second = Delivered([new_uuid().hex]), Delivered([new_uuid().hex])
    for message in (first, second):
        side.deliver(message)
        assert looks.acquire(timeout=PATIENCE)
    assert not second.acknowledged.is_set()
    side._idle = True
    intake.ring()
    assert second.acknowledged.wait(PATIENCE)


def test_what_waits_for_company_is_taken_once_the_device_is_free(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake._batcher.serve({ECHO: Limits(4, 3600.0)})
    looks, side = looked(intake, monkeypatch), Side(intake, idle=False)
    assert looks.acquire(timeout=PATIENCE)
    # As what is fetched in bulk, of which nobody waits for an acknowledgement.
    intake.put(queue.Queue("echo", "1", Priority.NORMAL), [queue.Message((new_uuid().hex,))])
    intake.ring()
    assert looks.acquire(timeout=PATIENCE)
    side._idle = True
    intake.ran(ECHO, 0.001)
    assert side.took.acquire(timeout=PATIENCE)


def test_so_many_messages_are_fetched_at_once_as_fill_the_room(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they carried of late: each fetch is a round trip."""
    asked, source = list[int](), queue.Queue("echo", "1", Priority.NORMAL)

    def lmpop(*_: object, count: int, **__: object) -> None:
        asked.append(count)

    monkeypatch.setattr(intake._client, "lmpop", lmpop)
    room = intake._room(ECHO)
    intake.fill([source.name])
    for _ in range(99):
        intake.put(source, [queue.Message((new_uuid().hex,))])
    intake._batcher.drain()
    intake.fill([source.name])
    assert asked == [room // queue.BUNDLE, pytest.approx(room, abs=1)]


def test_what_was_let_go_does_not_come_back_before_a_batch_is_wanted(intake: Intake) -> None:
    source, message = queue.Queue("echo", "1", Priority.NORMAL), queue.Message((new_uuid().hex,))
    assert intake.put(source, [message]) == []
    assert intake.drain() == list(message.ids)
    assert intake.put(source, [message]) == [message]


def test_what_is_held_back_keeps_nothing_else_in_redis(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "fill", lambda names: intake.ring())
    side, name = Side(intake), queue.Queue("echo", "1", Priority.NORMAL).name
    assert intake.hears(name)
    intake.hold_back(ECHO, time.monotonic() + 3600)
    assert not intake.hears(name), "it would come, and go back, over and over"
    for message in (Delivered([new_uuid().hex]), Delivered([new_uuid().hex])):
        side.deliver(message)
        assert message.acknowledged.wait(PATIENCE), "it fills Celery's window"
    intake.hold_back(ECHO, 0)
    assert side.took.acquire(timeout=PATIENCE)
    assert intake.hears(name)


@pytest.mark.parametrize("seconds", [0.001, 9.0])
def test_nothing_is_fetched_behind_what_takes_long(intake: Intake, seconds: float) -> None:
    for _ in range(99):
        intake.ran(ECHO, seconds)
    source = queue.Queue("echo", "1", Priority.NORMAL)
    assert intake.put(source, [queue.Message((new_uuid().hex,))]) == []
    assert len(intake.take(lambda: True, lambda: True)) == 1
    behind = queue.Message((new_uuid().hex,))
    assert intake.put(source, [behind]) == ([behind] if seconds > 1 else [])


def test_nothing_is_fetched_while_no_batch_is_wanted(intake: Intake) -> None:
    asked, wanted = threading.Event(), threading.Event()

    def ready() -> bool:
        asked.set()
        return wanted.is_set()

    taken: list[list[Draft]] = []
    taking = threading.Thread(target=lambda: taken.append(intake.take(lambda: False, ready)), daemon=True)
    taking.start()
    assert asked.wait(PATIENCE)
    intake.ring()  # it has the lock until it waits
    source, message = queue.Queue("echo", "1", Priority.NORMAL), queue.Message((new_uuid().hex,))
    assert intake.put(source, [message]) == [message]
    wanted.set()
    intake.ring()
    wait_until(lambda: intake.put(source, [message]) == [], "there is room")
    intake.ring()
    taking.join(PATIENCE)
    assert [draft.ids for draft in taken[0]] == [message.ids]


@pytest.mark.parametrize(
    ("seconds", "waits", "taken"), [(9.0, 0, 4), (9.0, 3, 1), (0.06, 0, 16), (0.06, 1, 11), (0.0, 0, 16)]
)
def test_a_message_is_parted_unless_what_is_too_much_of_it_takes_no_time(
    intake: Intake, seconds: float, waits: int, taken: int
) -> None:
    """There is room for a batch of 4, or for three where one takes 0.06 s."""
    for _ in range(99):
        intake.ran(ECHO, seconds)
    source = queue.Queue("echo", "1", Priority.NORMAL)
    intake.put(source, [queue.Message((new_uuid().hex,)) for _ in range(waits)])
    message = queue.Message(tuple(new_uuid().hex for _ in range(16)))
    left = intake.put(source, [message])
    assert [each.ids for each in left] == ([message.ids[taken:]] if taken < 16 else [])


@pytest.mark.parametrize("one_message", [True, False])
def test_a_job_that_must_be_alone_takes_the_room_of_a_batch(intake: Intake, one_message: bool) -> None:
    for _ in range(99):
        intake.ran(ECHO, 3.0)
    ids = tuple(new_uuid().hex for _ in range(6))
    messages = [queue.Message(ids, alone=True)] if one_message else [queue.Message((id,), alone=True) for id in ids]
    left = intake.put(queue.Queue("echo", "1", Priority.NORMAL), messages)
    assert tuple(id for message in left for id in message.ids) == ids[1:], "other workers idle meanwhile"


def test_what_comes_behind_a_batch_that_takes_long_is_heard_at_once_on_a_device_that_does_not_hold_all(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery asks Redis for some queues and waits for a second: one that it left out would be heard only then."""
    monkeypatch.setattr(Shelf, "complete", False)
    monkeypatch.setattr(Shelf, "choose", lambda *_: None)
    source, message = queue.Queue("echo", "1", Priority.NORMAL), queue.Message((new_uuid().hex,))
    name = source.name
    asked, over, woken = threading.Event(), threading.Event(), threading.Event()
    soon, filled = list[Callable[[], None]](), list[set[str]]()

    def ready() -> bool:
        asked.set()
        return over.is_set()

    def call_soon(verb: Callable[[], None] = woken.set) -> None:
        soon.append(verb)
        verb()

    monkeypatch.setattr(intake.consumers, "soon", call_soon)
    monkeypatch.setattr(intake.consumers, "names", lambda: [name])
    monkeypatch.setattr(intake, "fill", filled.append)
    threading.Thread(target=intake.take, args=(lambda: False, ready), daemon=True).start()
    assert asked.wait(PATIENCE)
    intake.ring()  # it has the lock until it waits
    assert intake.hears(name), "it waits for the batch, and for no answer of Redis"
    assert intake.put(source, [message]) == [message], "others may be idle"
    assert not intake.hears(name), "it would come, and go back, over and over"
    with monkeypatch.context() as patch:
        patch.setattr(Stock, "holds", lambda *_: False)
        assert intake.hears(name), "what waits for its turn is fetched"
    assert not soon
    over.set()
    intake.ring()
    assert woken.wait(PATIENCE), "it was told to leave this queue, and may wait for nothing"
    assert filled == [{name}]
    assert intake.hears(name)


def test_what_waits_for_its_turn_is_heard_while_the_device_is_taken_for_long(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Target("other", "1")
    intake._batcher.serve({ECHO: Limits(4, 0.0), other: Limits(4, 0.0)})
    monkeypatch.setattr(Shelf, "complete", False)
    monkeypatch.setattr(Stock, "holds", lambda *_: False)
    monkeypatch.setattr(intake, "fill", lambda names: intake.ring())
    monkeypatch.setattr(Side, "_take", lambda self: None)
    side, asked = Side(intake), threading.Event()

    def ready() -> bool:
        asked.set()
        return False

    threading.Thread(target=intake.take, args=(lambda: False, ready), daemon=True).start()
    assert asked.wait(PATIENCE)
    intake.ring()  # it has the lock until it waits
    message = Delivered([new_uuid().hex])
    side.deliver(message)
    assert message.acknowledged.wait(PATIENCE), "it fills Celery's window: the other model is not heard"
    assert intake.hears(queue.Queue("other", "1", Priority.NORMAL).name)


def test_nothing_is_fetched_once_closed(intake: Intake) -> None:
    message = queue.Message((new_uuid().hex,))
    intake.close()
    assert intake.put(queue.Queue("echo", "1", Priority.NORMAL), [message]) == [message]


def test_what_is_paused_does_not_keep_the_rest_from_coming_after_what_takes_long(intake: Intake) -> None:
    other = Target("other", "1")
    intake._batcher.serve({ECHO: Limits(4, 0.0), other: Limits(4, 0.0)})
    intake.put(queue.Queue("other", "1", Priority.NORMAL), [queue.Message((new_uuid().hex,))])
    intake.pause(frozenset({other}))
    intake.ran(ECHO, 99.0)
    side = Side(intake)
    message = Delivered([new_uuid().hex])
    side.deliver(message)
    assert side.took.acquire(timeout=PATIENCE)
    assert message.acknowledged.wait(PATIENCE)


def test_what_is_paused_while_it_waits_leaves_celerys_window_to_the_others(intake: Intake) -> None:
    acknowledged = threading.Event()
    message = queue.Message((new_uuid().hex,))
    assert intake.put(queue.Queue("echo", "1", Priority.NORMAL), [message], acknowledged.set) == []
    assert not acknowledged.is_set()
    intake.pause(frozenset({ECHO}))
    assert acknowledged.is_set()


def test_what_is_paused_or_not_served_is_not_asked_for_and_goes_back(intake: Intake) -> None:
    here, unknown = queue.Queue("echo", "1", Priority.NORMAL), queue.Queue("unknown", "1", Priority.NORMAL)
    assert (intake.hears(here.name), intake.hears(unknown.name)) == (True, False)
    intake.pause(frozenset({ECHO}))
    assert not intake.hears(here.name)
    message, acknowledged = queue.Message((new_uuid().hex,)), threading.Event()
    for source in (here, unknown):
        acknowledged.clear()
        assert intake.put(source, [message], acknowledged.set) == [message]
        assert acknowledged.is_set(), "it must not fill the window"


def test_what_is_taken_on_a_device_that_does_not_hold_all_makes_room_and_celery_asks_again(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's thread does: whoever claims waits for no Redis."""
    monkeypatch.setattr(Shelf, "complete", False)
    monkeypatch.setattr(Shelf, "choose", lambda *_: None)
    soon, filled = list[Callable[[], None]](), list[set[str]]()
    monkeypatch.setattr(intake, "fill", filled.append)
    monkeypatch.setattr(intake.consumers, "soon", soon.append)
    intake.put(queue.Queue("echo", "1", Priority.NORMAL), [queue.Message((new_uuid().hex,))])
    assert intake.take(lambda: True, lambda: True)
    assert not filled
    [verb] = soon
    verb()
    assert len(filled) == 1
