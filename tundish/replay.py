"""Replay: an arrival trace against a scaling policy, to see what it costs and how long jobs wait. Pure.

Jobs start in the order of their arrival, one at a time on a replica. The policy is asked at intervals, as an autoscaler
asks `/v1/pools`. It scales up at once, and down to the most that was wanted within the cool-down, as Kubernetes'
stabilisation window has it. A replica is paid for from its launch to its end, its start-up included.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import count, cycle

from tundish.scaling import QUIET, RATE, Load, Policy, suggested


@dataclass(frozen=True, slots=True)
class Terms:
    """What replicas take: seconds until a new one works, seconds that less must have been wanted before one goes,
    seconds between two looks of the autoscaler, and the price of one for an hour."""

    start_up: float = 60.0
    cool_down: float = 300.0
    every: float = 15.0
    hourly: float = 1.0


@dataclass(frozen=True, slots=True)
class Moment:
    """How it stood when the autoscaler looked."""

    at: float
    waiting: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """`waits` are seconds until each job's start, in the order of starts; `line` has a moment for each look."""

    waits: Sequence[float]
    replica_s: float
    seconds: float
    most: int
    cost: float
    line: Sequence[Moment]

    @property
    def mean(self) -> float:
        """Replicas, on average over the time."""
        return self.replica_s / self.seconds if self.seconds else 0.0

    def wait(self, quantile: float) -> float:
        """By nearest rank."""
        ranked = sorted(self.waits)
        return ranked[max(0, math.ceil(quantile * len(ranked)) - 1)] if ranked else 0.0


class _Kind(IntEnum):
    """What happens; at one moment, in this order."""

    DONE = 0
    READY = 1
    ARRIVE = 2
    LOOK = 3


def replay(arrivals: Sequence[float], service: Sequence[float], policy: Policy, terms: Terms) -> Replayed:
    """Jobs that arrive at `arrivals` (seconds, in order) and take the seconds of `service` in turn, one at a time on a
    replica; from the first arrival until all have ended and the pool is at its least again."""
    return _Pool(arrivals, service, policy, terms).run()


class _Pool:
    """A pool in simulated time. Of the replicas some start, some are idle, some are busy; `leaving` of the busy ones
    end with their job."""

    def __init__(self, arrivals: Sequence[float], service: Sequence[float], policy: Policy, terms: Terms) -> None:
        self._policy, self._terms = policy, terms
        self._arrivals = iter(arrivals)
        self._service = cycle(service)
        self._job_s = sum(service) / len(service)
        self._happen = (self._done, self._ready, self._arrive, self._look)  # by _Kind
        self._events: list[tuple[float, _Kind, int]] = []
        self._names = count()
        self._began = self._now = arrivals[0] if arrivals else 0.0
        self._left = len(arrivals)
        self._waiting: deque[float] = deque()
        self._recent: deque[float] = deque()
        self._last_arrival = -math.inf
        self._wanted: deque[tuple[float, int]] = deque()
        self._starting: list[int] = []
        self._idle, self._busy, self._leaving = policy.least, 0, 0
        self._waits: list[float] = []
        self._line: list[Moment] = []
        self._replica_s, self._most = 0.0, policy.least

    def run(self) -> Replayed:
        if self._left:
            self._next_arrival()
            self._at(self._now, _Kind.LOOK)
        while self._events:
            at, kind, which = heapq.heappop(self._events)
            self._replica_s += (at - self._now) * self._paid
            self._now = at
            self._happen[kind](which)
        seconds, cost = self._now - self._began, self._replica_s / 3600 * self._terms.hourly
        return Replayed(self._waits, self._replica_s, seconds, self._most, cost, self._line)

    @property
    def _paid(self) -> int:
        return len(self._starting) + self._idle + self._busy

    @property
    def _staying(self) -> int:
        return self._paid - self._leaving

    def _at(self, moment: float, kind: _Kind, which: int = 0) -> None:
        heapq.heappush(self._events, (moment, kind, which))

    def _next_arrival(self) -> None:
        arrival = next(self._arrivals, None)
        if arrival is not None:
            self._at(arrival, _Kind.ARRIVE)

    # What happens.

    def _arrive(self, _: int) -> None:
        self._left -= 1
        self._last_arrival = self._now
        self._recent.append(self._now)
        self._waiting.append(self._now)
        self._next_arrival()
        self._serve()

    def _ready(self, which: int) -> None:
        if which in self._starting:  # else it was given up before it was ready
            self._starting.remove(which)
            self._idle += 1
            self._serve()

    def _done(self, _: int) -> None:
        self._busy -= 1
        if self._leaving:
            self._leaving -= 1
        else:
            self._idle += 1
            self._serve()

    def _look(self, _: int) -> None:
        self._scale(suggested(self._load(), self._policy))
        self._line.append(Moment(self._now, len(self._waiting), self._paid))
        if self._left or self._waiting or self._busy or self._staying > self._policy.least:
            self._at(self._now + self._terms.every, _Kind.LOOK)

    # What follows from it.

    def _serve(self) -> None:
        while self._idle and self._waiting:
            self._idle -= 1
            self._busy += 1
            self._waits.append(self._now - self._waiting.popleft())
            self._at(self._now + next(self._service), _Kind.DONE)

    def _load(self) -> Load:
        while self._recent and self._recent[0] < self._now - RATE:
            self._recent.popleft()
        return Load(
            backlog=len(self._waiting),
            oldest_age_s=self._now - self._waiting[0] if self._waiting else 0.0,
            arrival_per_s=len(self._recent) / RATE,
            awake=bool(self._busy) or self._now - self._last_arrival <= QUIET,
            job_s=self._job_s,
            replicas=self._staying,
        )

    def _scale(self, wanted: int) -> None:
        while self._wanted and self._wanted[0][0] <= self._now - self._terms.cool_down:
            self._wanted.popleft()
        self._wanted.append((self._now, wanted))
        if wanted > self._staying:
            self._launch(wanted - self._staying)
        else:
            held = max(most for _, most in self._wanted)
            self._end(max(0, self._staying - held))

    def _launch(self, more: int) -> None:
        stay = min(more, self._leaving)
        self._leaving -= stay
        for _ in range(more - stay):
            which = next(self._names)
            self._starting.append(which)
            self._at(self._now + self._terms.start_up, _Kind.READY, which)
        self._most = max(self._most, self._paid)

    def _end(self, fewer: int) -> None:
        """The newest that start go first, then idle ones, then busy ones once their job has ended."""
        while fewer and self._starting:
            self._starting.pop()
            fewer -= 1
        ended = min(fewer, self._idle)
        self._idle -= ended
        self._leaving += fewer - ended
