"""Whose webhooks may be sent now. Pure: time is passed in.

A lane is what one receiver's deliveries share. It has a cap on what is on its way at once, which grows with each
success and is halved by each answer that says "too much"; and a breaker, which opens after failures in a row and then
lets one delivery through at a time, at ever longer intervals, until one succeeds.

A lane is quick while its last answer was a success, its answers come soon, and the next does not keep us waiting. Quick
lanes have room of their own, so that all that hang, fail, are slow, or were never heard of together keep no quick one
waiting. So have fresh deliveries and those that are tried again, in every lane and in the process.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from workers.verdict import Answer


class Kind(StrEnum):
    """Deliveries that wait for their first try, and those that wait for another."""

    FRESH = "fresh"
    RETRIED = "retried"


#: What may be on its way to one receiver: at first, where each success doubles it up to, and at most.
FIRST, DOUBLED, MOST = 2, 16, 64
#: What one process has on its way to quick lanes and to the others, by kind.
AT_ONCE = {Kind.FRESH: 768, Kind.RETRIED: 256}
SLOW_AT_ONCE = {Kind.FRESH: 384, Kind.RETRIED: 128}
#: Seconds that a quick lane may keep us waiting; and how much the last answer counts in how long its answers take.
PATIENCE = 1.0
LAST = 0.05
#: Failures in a row that open the breaker; as many as may be on their way do, where those are fewer.
TRIPS_AFTER = 10
#: Seconds that an open breaker, or a throttled lane without a Retry-After, waits: at first, and at most.
SHORTEST, LONGEST = 1.0, 30.0
#: Seconds after which a lane that nothing happens in is forgotten.
FORGET = 60.0


@dataclass(slots=True)
class Lane:
    """One receiver. Times are seconds of one monotonic clock."""

    cap: int = FIRST
    running: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    good: bool = False  # so was its last answer
    waited_since: float = 0.0  # for its next answer, where something is on its way
    took: float = 0.0  # seconds until a success, the last ones above all
    failures: int = 0  # in a row
    wait: float = SHORTEST  # the next pause, unless the receiver says one
    opens_at: float = 0.0  # nothing is sent before
    seen_at: float = 0.0

    def room(self, kind: Kind, now: float) -> int:
        """How many more may be sent."""
        return 0 if now < self.opens_at else max(0, self.cap - self.running[kind])

    def quick(self, now: float) -> bool:
        """Answers that are many may come soon one after the other though each takes long: then they hold much room."""
        soon = self.took < PATIENCE and (now < self.waited_since + PATIENCE or not any(self.running.values()))
        return self.good and soon

    def began(self, kind: Kind, now: float) -> None:
        if not any(self.running.values()):
            self.waited_since = now
        self.running[kind] += 1
        self.seen_at = now

    def succeeded(self, now: float, took: float) -> None:
        self.good, self.waited_since = True, now
        self.took += LAST * (took - self.took)
        self.failures, self.wait = 0, SHORTEST
        self.cap = min(MOST, max(self.cap + 1, min(DOUBLED, self.cap * 2)))

    def failed(self, now: float) -> None:
        """What was on its way when the breaker opened tells nothing new."""
        self.good = False
        if now < self.opens_at:
            return
        self.failures += 1
        if self.failures >= min(self.cap, TRIPS_AFTER):
            self.cap = 1
            self._pause(now, 0.0)

    def throttled(self, now: float, asked: float) -> None:
        """The receiver has too much to do, and asked for so many seconds (0: it did not say)."""
        self.good = False
        if now >= self.opens_at:
            self.cap = max(1, self.cap // 2)
            self._pause(now, asked)
        else:
            self.opens_at = max(self.opens_at, now + asked)

    def _pause(self, now: float, asked: float) -> None:
        self.opens_at = now + (asked or self.wait)
        self.wait = min(LONGEST, self.wait * 2)


class Quota(NamedTuple):
    """How many more deliveries of a kind may be sent: to each quick lane and to all of them, to each of the others that
    is known, to each that is not, and to all of those."""

    quick: dict[UUID, int]
    quick_limit: int
    others: dict[UUID, int]
    unknown: int
    others_limit: int


class Lanes:
    """All lanes that this process knows something of."""

    def __init__(self) -> None:
        self._lanes: dict[UUID, Lane] = {}
        self._running = dict.fromkeys(Kind, 0)

    def busy(self, kind: Kind) -> float:
        """How much of this process's room is taken, from 0 to 1."""
        return self._running[kind] / (AT_ONCE[kind] + SLOW_AT_ONCE[kind])

    def quota(self, kind: Kind, now: float, most: int) -> Quota:
        """What may be sent now, up to `most` of each sort. The quick lane that was sent nothing for the longest comes
        first."""
        quick, others, slow = {}, {}, 0
        for id, lane in self._lanes.items():
            if lane.quick(now):
                quick[id] = lane.room(kind, now)
            else:
                others[id] = lane.room(kind, now)
                slow += lane.running[kind]
        # What is on its way to a lane that was quick is held against the others from now on, and may be more than they
        # have room for.
        running, at_once, slow_at_once = self._running[kind], AT_ONCE[kind], SLOW_AT_ONCE[kind]
        most = max(0, min(most, at_once + slow_at_once - running))
        quick_limit = min(most, at_once - (running - slow))
        return Quota(quick, max(0, quick_limit), others, FIRST, max(0, min(most, slow_at_once - slow)))

    def began(self, id: UUID, kind: Kind, now: float) -> None:
        lane = self._lanes[id] = self._lanes.pop(id) if id in self._lanes else Lane()
        lane.began(kind, now)
        self._running[kind] += 1

    def ended(
        self, id: UUID, kind: Kind, answer: Answer | None, *, now: float, took: float = 0.0, asked: float = 0.0
    ) -> None:
        """`answer` is None where nothing was sent, and `took` so many seconds; `asked` are those for which the receiver
        wants to be left alone."""
        lane = self._lanes[id]
        lane.running[kind] -= 1
        self._running[kind] -= 1
        if answer is None:
            return
        if answer.good:
            lane.succeeded(now, took)
        elif answer.throttles or asked:
            lane.throttled(now, asked)
        else:
            lane.failed(now)

    def forget(self, now: float) -> None:
        """Let go of lanes that nothing has happened in for long."""
        idle = [
            id
            for id, lane in self._lanes.items()
            if max(lane.seen_at, lane.opens_at) < now - FORGET and not any(lane.running.values())
        ]
        for id in idle:
            del self._lanes[id]


@dataclass(slots=True)
class Looks:
    """When to look into the outbox again. The more is on its way, the longer a look waits for room for many: one that
    finds a few costs more than they do. A bell may ring for nothing, where another courier took the webhooks: looks
    that it caused and that found nothing grow rare. Seconds."""

    shortest: float = 0.005
    full: float = 0.03
    longest: float = 0.5
    gap: float = 0.005

    def looked(self, *, found: bool, rung: bool, busy: float) -> None:
        """`busy` is how much of the process's room is taken, from 0 to 1."""
        if found or not rung:
            self.gap = self.shortest + busy * (self.full - self.shortest)
        else:
            self.gap = min(self.longest, self.gap * 2)
