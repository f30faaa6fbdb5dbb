"""Whose webhooks may be sent now. Pure: time is passed in.

A lane is what one receiver's deliveries share. It has a cap on what is on its way at once, which grows with each
success and is halved by each answer that says "too much"; and a breaker, which opens after failures in a row and then
lets one delivery through at a time, at ever longer intervals, until one succeeds.

Fresh deliveries and those that are tried again never wait for each other: each kind has its own room, in every lane and
in the process.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from workers.verdict import Answer


class Kind(StrEnum):
    """Deliveries that wait for their first try, and those that wait for another."""

    FRESH = "fresh"
    RETRIED = "retried"


#: What may be on its way to one receiver: at first, and at most.
FIRST, MOST = 16, 64
#: What one process has on its way, by kind.
AT_ONCE = {Kind.FRESH: 768, Kind.RETRIED: 256}
#: Failures in a row that open the breaker.
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
    failures: int = 0  # in a row
    wait: float = SHORTEST  # the next pause, unless the receiver says one
    opens_at: float = 0.0  # nothing is sent before
    seen_at: float = 0.0

    def room(self, kind: Kind, now: float) -> int:
        """How many more may be sent."""
        return 0 if now < self.opens_at else max(0, self.cap - self.running[kind])

    def succeeded(self) -> None:
        self.failures, self.wait = 0, SHORTEST
        self.cap = min(MOST, self.cap + 1)

    def failed(self, now: float) -> None:
        """What was on its way when the breaker opened tells nothing new."""
        if now < self.opens_at:
            return
        self.failures += 1
        if self.failures >= TRIPS_AFTER:
            self.cap = 1
            self._pause(now, 0.0)

    def throttled(self, now: float, asked: float) -> None:
        """The receiver has too much to do, and asked for so many seconds (0: it did not say)."""
        if now >= self.opens_at:
            self.cap = max(1, self.cap // 2)
            self._pause(now, asked)
        else:
            self.opens_at = max(self.opens_at, now + asked)

    def _pause(self, now: float, asked: float) -> None:
        self.opens_at = now + (asked or self.wait)
        self.wait = min(LONGEST, self.wait * 2)


class Lanes:
    """All lanes that this process knows something of; the others have room for FIRST."""

    def __init__(self) -> None:
        self._lanes: dict[UUID, Lane] = {}
        self._running = dict.fromkeys(Kind, 0)

    def free(self, kind: Kind) -> int:
        """How many more of a kind this process may send."""
        return AT_ONCE[kind] - self._running[kind]

    def busy(self, kind: Kind) -> float:
        """How much of this process's room is taken, from 0 to 1."""
        return self._running[kind] / AT_ONCE[kind]

    def rooms(self, kind: Kind, now: float) -> dict[UUID, int]:
        """How many more each known lane may send."""
        return {id: lane.room(kind, now) for id, lane in self._lanes.items()}

    def began(self, id: UUID, kind: Kind, now: float) -> None:
        lane = self._lanes.setdefault(id, Lane())
        lane.running[kind] += 1
        lane.seen_at = now
        self._running[kind] += 1

    def ended(self, id: UUID, kind: Kind, answer: Answer | None, *, now: float, asked: float = 0.0) -> None:
        """`answer` is None where nothing was sent; `asked` are the seconds that the receiver wants to be left alone."""
        lane = self._lanes[id]
        lane.running[kind] -= 1
        self._running[kind] -= 1
        if answer is None:
            return
        if answer.good:
            lane.succeeded()
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
    finds a few costs more than they do. Bells ring for every job that ends, with a webhook or not: looks that they
    caused and that found nothing grow rare. Seconds."""

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
