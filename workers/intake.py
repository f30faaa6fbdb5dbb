"""From Redis to the batcher: the Strategy that Celery calls for each message instead of running a task.

Ids go to the batcher, which threads of the pipeline empty. A message is acknowledged once more is wanted, so that
Celery's prefetch window bounds what a worker holds; acknowledging from a thread must wake the hub.
"""

import logging
import math
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, cast

import msgspec
import redis
from celery import Celery, Task
from celery.exceptions import InvalidTaskError

from tundish import queue
from workers.batch import Batcher, Draft, Limits, Target
from workers.consume import Consumers, queues
from workers.entry import Entry
from workers.shelf import Choice, Shelf

log = logging.getLogger(__name__)


class Intake:
    """The batcher behind a lock, with a bell that rings when something arrived or the device fell idle.

    It outlives Celery's consumer, which is built again at every reconnect.
    """

    def __init__(self, batcher: Batcher, client: redis.Redis, consumers: Consumers, shelf: Shelf) -> None:
        self._batcher = batcher
        self._client = client
        self._shelf = shelf
        self.consumers = consumers
        self._bell = threading.Condition()
        self._held: list[Callable[[], None]] = []
        self._closed = False
        self._full = False  # no batch is wanted: the device is taken for long
        self._passed: set[Target] = set()  # of what came while the device was taken for long, and went back
        self._silent_since = float("inf")
        self._idle: Callable[[], bool] | None = None  # of who waits for a batch
        shelf.changed = self.ring
        self._bundle = float(queue.BUNDLE)  # ids of a message, lately: how many messages fill the room

    def put(
        self, source: queue.Queue, messages: Sequence[queue.Message], acknowledge: Callable[[], None] | None = None
    ) -> list[queue.Message]:
        """Let the jobs of messages wait for their batch, as many as there is room for; who waits for one is told by
        `ring`. What is left of the messages, and belongs back in its list: all of it where no batch would come of it,
        for they are paused or no longer served. `acknowledge` is called once more is wanted."""
        target, now = Target(source.model, source.version), time.monotonic()
        with self._bell:
            self._silent_since = now
            due, room = self._due(target), self._room(target)
            spare = self._batcher.spare(target) if room else 0
            # Before any other thread may take the batch: who acknowledged later would wait for one more, which cannot
            # come while this message fills Celery's window. So would the messages of others behind what is not due.
            if acknowledge and due:
                self._held.append(acknowledge)
            elif acknowledge:
                acknowledge()
            left = list[queue.Message]()
            for message in messages:
                self._bundle += 0.2 * (len(message.ids) - self._bundle)
                ids: tuple[str, ...] = ()
                if room > 0:
                    takes = self._batcher.takes(target, message.alone)
                    whole = takes * len(message.ids) <= room + spare
                    ids = message.ids if whole else message.ids[: math.ceil(room / takes)]
                    self._batcher.add(target, ids, priority=source.priority, now=now, alone=message.alone)
                    room -= takes * len(ids)
                if len(ids) < len(message.ids):
                    left.append(replace(message, ids=message.ids[len(ids) :]))
            if left and self._waits_behind(target):
                self._passed.add(target)
            return left

    def pause(self, targets: frozenset[Target]) -> None:
        """Hand out no batch of these from now on, and again of all others. What waits here already goes on waiting, the
        rest in Redis."""
        self.consumers.follow(self.consumers.targets - targets, "pause")
        with self._bell:
            self._batcher.paused = targets
            # A message of theirs must not fill the window in which those of others come.
            self._let_go()
            self._bell.notify()

    def hold_back(self, target: Target, until: float) -> None:
        """Hand out no batch of it before this moment."""
        with self._bell:
            self._batcher.held_back[target] = until
            self._bell.notify()

    def single(self, target: Target, until: float) -> None:
        """Hand out one batch of it at a time until this moment."""
        with self._bell:
            self._batcher.single[target] = until

    def exchange(self, entries: Mapping[Target, Entry]) -> None:
        """Hand out batches of these from now on, and of no others: they take the place of what is on the shelf."""
        with self._bell:
            self._batcher.serve({target: Limits.of(each.served.model) for target, each in entries.items()})
            self._shelf.exchange(entries)
            self._let_go()
        self.consumers.serve(entries)

    def take(self, idle: Callable[[], bool], ready: Callable[[], bool]) -> list[Draft]:
        """Wait for the next batch that is due, with those that are claimed with it; none once closed. `idle` tells
        whether the device has nothing to do, `ready` whether a batch is wanted at all."""
        drafts = self._take(idle, ready)
        if drafts and not self._shelf.complete:
            # Celery was told to leave what there was no room for, and may be waiting on other queues.
            self.consumers.soon(partial(self._refill, drafts[0].target))
        return drafts

    def _take(self, idle: Callable[[], bool], ready: Callable[[], bool]) -> list[Draft]:
        with self._bell:
            self._silent_since = time.monotonic()
            while not self._closed:
                now = time.monotonic()
                full, self._full = self._full, not ready()
                if self._full:
                    if not self._shelf.complete:  # what waits for its turn is heard all the same
                        self._let_go()
                    self._bell.wait()
                    continue
                if full:
                    self._let_go()
                    passed, self._passed = self._passed, set()
                    for target in passed:  # Redis may be waited on without it
                        self.consumers.soon(partial(self._refill, target))
                    self.consumers.soon()  # it may have been told to leave everything
                choice = self._choose(now, idle())
                if draft := self._batcher.take(now, idle=idle(), among=choice and choice.targets):
                    self._shelf.drafted(draft.target)
                    self._silent_since, self._idle = float("inf"), None
                    self._full = not self._batcher.quick(draft.target)
                    if not (self._full and self._shelf.complete):
                        self._let_go()
                    return [draft, *(self._batcher.take_behind(draft, now) if choice is None else ())]
                # What may not be drafted, or is not there, must not keep Celery from the rest.
                if choice or not self._batcher.waiting(now):
                    self._let_go()
                self._idle = idle
                moments = [self._batcher.due_at(now, choice and choice.targets), choice and choice.look_at]
                soonest = min((moment for moment in moments if moment is not None), default=None)
                self._bell.wait(None if soonest is None else max(0.0, soonest - now))
            return []

    def _choose(self, now: float, idle: bool) -> Choice | None:
        """What may be drafted; None for everything: all is loaded, as most of the time."""
        return None if self._shelf.complete else self._shelf.choose(self._batcher.waiting(now), now, idle)

    def hears(self, name: str) -> bool:
        """Whether Redis is asked for a queue now: not for what no batch would come of. While not all models are on the
        device, what there is no room for is left in Redis, for other workers; but for one that is there until a message
        of its came in vain: else the next job after a batch that took long would wait until Redis is asked again."""
        source = queue.Queue.parse(name)
        if source is None:
            return True
        with self._bell:
            target = Target(source.model, source.version)
            if self._shelf.complete:
                return target in self._batcher and self._batcher.allowed(target, time.monotonic())
            in_vain = target in self._passed and self._waits_behind(target)
            return not in_vain and self._more(target) > 0

    def eager(self, target: Target) -> bool:
        """Whether its next message is taken at once: what may follow it need not be fetched first."""
        with self._bell:
            nothing_waits = self._shelf.complete and len(self._batcher) == 0
            return self._idle is not None and nothing_waits and self._batcher.quick(target) and self._idle()

    @property
    def silent(self) -> float:
        """Seconds that a batch has been asked for while no message came; 0 or less where none is asked for."""
        return time.monotonic() - self._silent_since

    def ring(self) -> None:
        """Look again: something has changed."""
        with self._bell:
            self._bell.notify()

    def ran(self, target: Target, seconds: float) -> None:
        """A batch took so long, and the device is free."""
        with self._bell:
            self._batcher.ran(target, seconds)
            # Nobody is woken for nothing: he would keep what came of the batch from being recorded.
            if self._full or self._held or len(self._batcher) or not self._shelf.complete:
                self._bell.notify()

    def close(self) -> None:
        """No batch is handed out any more."""
        with self._bell:
            self._closed = True
            self._bell.notify_all()

    def drain(self) -> list[str]:
        """Let go of what waits: its ids, in no order. Nothing more is fetched before the next batch is wanted."""
        with self._bell:
            self._full = True
            self._bell.notify()
            return self._batcher.drain()

    def fill(self, names: Iterable[str]) -> None:
        """Fetch as many more messages as there is room for, of each target the best priority first: one LMPOP brings
        what would else be a round trip a message (20 times the rate at bundles of one). Who waits for a batch is told
        at the end."""
        try:
            self._fill(names)
        finally:
            self.ring()

    def _refill(self, target: Target) -> None:
        """What was taken of it has made room."""
        with suppress(redis.RedisError):  # Celery hears of that when it asks
            self.fill(set(self.consumers.names()).intersection(each.name for each in queues([target])))

    def _fill(self, names: Iterable[str]) -> None:
        for target, sources in _by_target(names).items():
            lists = {source.name: source for source in sources}
            while count := self._wanted(target):
                popped = self._client.lmpop(len(lists), *lists, direction="RIGHT", count=count)
                if not popped:
                    break
                name, raws = cast("tuple[bytes, list[bytes]]", popped)
                source = lists[name.decode()]
                if left := self.put(source, list(_unpacked(raws))):
                    self.put_back(source, left)
                    break

    def put_back(self, source: queue.Queue, left: Sequence[queue.Message]) -> None:
        """What there is no room for goes back in front of its list: the next one who has room takes it. Where Redis
        does not take it, the sweep sends it again."""
        try:
            queue.put_back(self._client, source, left)
        except redis.RedisError as error:
            log.warning("what there is no room for waits for the next sweep: %s", error)

    def _due(self, target: Target) -> bool:
        """Whether its jobs come to a batch here."""
        return target in self._batcher and target not in self._batcher.paused

    def _room(self, target: Target) -> int:
        """How many more of its ids are wanted. While the device is taken for long: of what waits for its turn on it."""
        return 0 if self._waits_behind(target) else self._more(target)

    def _waits_behind(self, target: Target) -> bool:
        """Whether the target would wait behind what takes the device for long: it is on it already."""
        return self._full and self._shelf.stock.holds(target)

    def _more(self, target: Target) -> int:
        """How many more of its ids there is room for, whatever runs."""
        return 0 if self._closed or not self._due(target) else self._batcher.room(target)

    def _wanted(self, target: Target) -> int:
        """How many messages fill the room for a target; 0 where there is none."""
        with self._bell:
            room = self._room(target)
        return max(1, int(room / self._bundle)) if room else 0

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for acknowledge in held:
            acknowledge()


def strategy(intake: Intake) -> Callable[..., Callable[..., None]]:
    """A Celery Strategy that feeds `intake`."""

    def start(task: Task[Any, Any], app: Celery, consumer: Any, **options: object) -> Callable[..., None]:
        intake.consumers.attach(consumer)

        def on_message(message: Any, body: object, ack: object, reject: object, callbacks: object) -> None:
            key = message.delivery_info["routing_key"]
            if (source := queue.Queue.parse(key)) is None:
                raise InvalidTaskError(f"{key} is no queue of jobs")
            acknowledge = partial(message.ack_log_error, log, consumer.connection_errors)
            target = Target(source.model, source.version)
            lone = intake.eager(target)
            later = None if lone else partial(consumer.hub.call_soon, acknowledge)
            try:
                left = intake.put(source, [queue.decode(message.payload[0], message.headers.get("sent"))], later)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise InvalidTaskError(str(error)) from error
            if left:
                intake.put_back(source, left)
            if lone:
                intake.ring()
                acknowledge()
            else:
                # First the rest of its batch: of a model that takes long nothing is fetched behind it.
                own, names = {each.name for each in queues([target])}, set(intake.consumers.names())
                intake.fill(own & names)
                if others := names - own:
                    intake.fill(others)

        return on_message

    return start


def _by_target(names: Iterable[str]) -> dict[Target, list[queue.Queue]]:
    """Our queues of each target, the best priority first."""
    found: dict[Target, list[queue.Queue]] = {}
    for source in sorted(filter(None, map(queue.Queue.parse, names)), key=lambda source: source.priority):
        found.setdefault(Target(source.model, source.version), []).append(source)
    return found


def _unpacked(raws: Iterable[Any]) -> Iterator[queue.Message]:
    for raw in raws:
        try:
            yield unpack(raw)
        except (ValueError, LookupError, TypeError, msgspec.MsgspecError) as error:
            log.error("a message that is not ours is dropped: %s", error)


class _Headers(msgspec.Struct):
    sent: object = None


class _Envelope(msgspec.Struct):
    body: str
    headers: _Headers = msgspec.field(default_factory=_Headers)


_envelope = msgspec.json.Decoder(_Envelope)
_body = msgspec.json.Decoder()


def unpack(raw: bytes | str) -> queue.Message:
    """The message in an envelope, as it lies in its list. Raises ValueError."""
    envelope = _envelope.decode(raw)
    return queue.decode(_body.decode(b64decode(envelope.body))[0], envelope.headers.sent)
