"""Events: what running batches say of their jobs goes to Redis, and no model waits for it.

A model's thread puts events into a bounded buffer; a thread of the worker's own writes what has gathered in one round
trip. What does not fit, and what Redis does not take, is lost: whoever follows a job still gets its end, from Postgres.
A batch that says nothing costs nothing.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from uuid import UUID

import redis

from tundish import events
from tundish.events import Kind, Position

log = logging.getLogger(__name__)

#: Events, and their bytes, that wait at most while Redis is slow. Logs and progress get the first half alone.
ROOM = 20_000
ROOM_BYTES = 8 * 2**20
#: Events of one round trip.
WRITE = 1000
#: Seconds in which events gather after a round trip: a model that says much must not have its thread disturbed often.
GATHER = 0.01
#: Seconds that the end of a batch waits at most for its last events to be written.
PATIENCE = 5.0
#: Seconds for which nothing is tried after Redis failed.
RETRY = 5.0


@dataclass(slots=True)
class Said:
    """The events of one attempt of a job. A number is given to what is dropped too, so that the ids show a gap."""

    job: UUID
    attempt: int
    number: int = 0
    run: int = 1
    progress: float | None = None
    progress_waits: bool = False
    largest: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """An event that waits; the data of a progress is that of its moment of writing."""

    said: Said
    kind: Kind
    number: int
    data: bytes = b""


class Buffer:
    """Events in the order in which they were put. Bounded: `put` refuses rather than waits."""

    def __init__(self, room: int = ROOM, room_bytes: int = ROOM_BYTES) -> None:
        self._events: deque[Event] = deque()
        self._room = room
        self._room_bytes = room_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, said: Said, kind: Kind, data: bytes = b"") -> bool:
        """False where there is no room. Of a job's progress only the latest waits."""
        if kind is Kind.PROGRESS and said.progress_waits:
            return True
        said.number += 1
        share = 1 if kind is Kind.OUTPUT else 2
        if len(self._events) * share >= self._room or (self._bytes + len(data)) * share > self._room_bytes:
            return False
        said.progress_waits |= kind is Kind.PROGRESS
        self._events.append(Event(said, kind, said.number, data))
        self._bytes += len(data)
        return True

    def take(self, most: int) -> list[Event]:
        """The oldest events, which wait no more."""
        taken = [self._events.popleft() for _ in range(min(most, len(self._events)))]
        for event in taken:
            self._bytes -= len(event.data)
            if event.kind is Kind.PROGRESS:
                event.said.progress_waits = False
        return taken


class Events:
    """Takes events from any thread, and writes them from one of its own. `kept` is how many seconds a job is kept."""

    def __init__(self, client: redis.Redis, kept: float) -> None:
        self._client = client
        self._kept = max(1, int(min(kept, events.KEPT)))
        self._buffer = Buffer()
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._put = self._written = 0
        self._retry_at = 0.0
        self._lost = 0
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def put(self, said: Said, kind: Kind, data: bytes = b"") -> None:
        """Never waits for more than another `put`."""
        with self._changed:
            before = len(self._buffer)
            if time.monotonic() < self._retry_at or not self._buffer.put(said, kind, data):
                self._lost += 1
            elif len(self._buffer) > before:
                self._put += 1
                if before == 0:
                    self._changed.notify_all()

    def settle(self) -> None:
        """What was put until now is written, or lost, when this returns: a job's end must not overtake its events."""
        if self._put == self._written:
            return
        with self._changed:
            until = self._put
            self._hurry.set()
            self._changed.wait_for(lambda: self._written >= until, PATIENCE)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._buffer))
                taken = self._buffer.take(WRITE)
            self._write(taken)
            with self._changed:
                self._written += len(taken)
                self._changed.notify_all()
                more = len(self._buffer) > 0
            if not more:
                self._hurry.clear()
            self._hurry.wait(GATHER)

    def _write(self, taken: list[Event]) -> None:
        why: object = "they came faster than Redis took them"
        try:
            if refused := self._send(taken):
                why = refused[0]
                self._lost += len(refused)
        except redis.RedisError as error:
            why = error
            self._retry_at = time.monotonic() + RETRY
            self._lost += len(taken)
        if self._lost:
            log.warning("%d events of running jobs were lost: %s", self._lost, why)
            self._lost = 0

    def _send(self, taken: list[Event]) -> list[Exception]:
        """Write events, and wake who listens; all or nothing, for what is written and not told when to expire would
        stay for good. What Redis refused; that it has a number already is none of it: an earlier try came through, or a
        later attempt has begun."""
        pipeline = self._client.pipeline(transaction=True)
        for event in taken:
            said = event.said
            said.largest = max(said.largest, len(event.data))
            pipeline.xadd(
                events.key(said.job),
                events.fields(event.kind, event.data, said.progress),
                id=str(Position(said.attempt, event.number)),
                maxlen=min(events.LENGTH, events.BYTES // said.largest),
            )
        jobs = {event.said.job: None for event in taken}
        for job in jobs:
            pipeline.expire(events.key(job), self._kept)
        pipeline.publish(events.CHANNEL, b"".join(job.bytes for job in jobs))
        answers = pipeline.execute(raise_on_error=False)
        return [each for each in answers if isinstance(each, Exception) and "equal or smaller" not in str(each)]
