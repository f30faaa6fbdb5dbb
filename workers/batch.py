"""Which jobs run together, and when: pure. Time is passed in; nothing here waits, locks or talks to anyone."""

import math
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

from tundish.job import Priority
from tundish.model import Model

#: Seconds of work that a worker claims at once. Of what takes longer nothing is fetched before it can be claimed.
AHEAD = 0.1
#: Jobs from which on a statement takes no further batch: what measured best.
ROWS = 512


@dataclass(frozen=True, slots=True)
class Target:
    """What a batch runs on: one version of one model."""

    model: str
    version: str

    @classmethod
    def of(cls, model: type[Model[Any, Any]]) -> "Target":
        return cls(model.name, model.version)

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How a target batches: at most `max_batch` jobs, none held for company over `max_wait` seconds."""

    max_batch: int
    max_wait: float

    @classmethod
    def of(cls, model: type[Model[Any, Any]]) -> "Limits":
        return cls(model.max_batch, model.max_wait)


@dataclass(frozen=True, slots=True)
class Draft:
    """Jobs that shall be claimed together, in the order they shall run; ids as messages carry them. `alone`: a job that
    must be."""

    target: Target
    ids: tuple[str, ...]
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a target: how many full batches (a part of one is a fraction), and since when the oldest."""

    batches: float
    since: float


#: An id and when it arrived.
_Arrived = tuple[str, float]


@dataclass(slots=True)
class _Line:
    """The jobs that wait for one target: first in, first out within a priority; the small number goes first. `period`:
    seconds from one batch to the next of late, on average; who knows, before the first."""

    limits: Limits
    period: float = math.inf
    by_priority: dict[int, deque[_Arrived]] = field(default_factory=dict)
    alone: deque[_Arrived] = field(default_factory=deque)

    @property
    def width(self) -> int:
        """How many batches may be taken at once."""
        return max(1, min(round(AHEAD / self.period), ROWS // self.limits.max_batch))

    @property
    def behind(self) -> int:
        """How many batches are worth having here behind those."""
        return min(2, int(AHEAD / self.period))

    def heads(self) -> Iterator[tuple[int, float]]:
        """Each priority that waits, and since when its first does."""
        for priority in sorted(self.by_priority):
            if self.by_priority[priority]:
                yield priority, self.by_priority[priority][0][1]

    def count(self) -> int:
        return sum(map(len, self.by_priority.values()))

    def oldest(self) -> float:
        return min((arrived for _, arrived in self.heads()), default=float("inf"))

    def waiting(self) -> Waiting:
        lonely = self.alone[0][1] if self.alone else float("inf")
        return Waiting(self.count() / self.limits.max_batch + len(self.alone), min(self.oldest(), lonely))


class Batcher:
    """Holds ids until they make a batch.

    A batch is due once it is full, once its oldest job has waited `max_wait`, or at once while the device is idle: a
    lone job is never held back for company that may not come. What is `paused` is never due; what is `held_back` is not
    before that moment; what is `single` is taken one batch at a time until then.
    """

    def __init__(self, limits: Mapping[Target, Limits]) -> None:
        self._lines = {target: _Line(each) for target, each in limits.items()}
        self.paused: frozenset[Target] = frozenset()
        self.held_back: dict[Target, float] = {}
        self.single: dict[Target, float] = {}

    def serve(self, limits: Mapping[Target, Limits]) -> None:
        """Make batches of these targets from now on. What waits for one that stays goes on waiting; what waits for
        another is let go."""
        lines = {target: self._lines.get(target) or _Line(each) for target, each in limits.items()}
        self._lines = {target: replace(line, limits=limits[target]) for target, line in lines.items()}

    def __contains__(self, target: Target) -> bool:
        return target in self._lines

    def __len__(self) -> int:
        return sum(line.count() + len(line.alone) for line in self._lines.values())

    def add(self, target: Target, ids: Sequence[str], *, priority: int, now: float, alone: bool = False) -> None:
        """Let `ids` wait for `target`. `alone`: each must be the only job of its batch. KeyError for a target that
        this worker does not serve."""
        line = self._lines[target]
        waiting = line.alone if alone else line.by_priority.setdefault(priority, deque())
        waiting.extend(zip(ids, repeat(now)))

    def drain(self) -> list[str]:
        """Let go of all that waits: its ids, in no order."""
        waiting = [line for each in self._lines.values() for line in (each.alone, *each.by_priority.values())]
        ids = [id for line in waiting for id, _ in line]
        for line in waiting:
            line.clear()
        return ids

    def ran(self, target: Target, seconds: float) -> None:
        """A batch of the target took this worker so long: as many as it runs in AHEAD seconds may be taken at once, up
        to ROWS jobs."""
        if line := self._lines.get(target):
            line.period = max(1e-6, seconds if line.period == math.inf else line.period + 0.2 * (seconds - line.period))

    def quick(self, target: Target) -> bool:
        """Whether its batches are known to take so little that the next ones are fetched meanwhile."""
        line = self._lines.get(target)
        return line is not None and line.period < AHEAD

    def allowed(self, target: Target, now: float) -> bool:
        """Whether its batches may be taken: it is neither paused nor held back."""
        return target not in self.paused and self.held_back.get(target, now) <= now

    def takes(self, target: Target, alone: bool) -> int:
        """How much room a job takes: that of one id, or of the batch that it is alone in."""
        return self._lines[target].limits.max_batch if alone else 1

    def room(self, target: Target) -> int:
        """How many more ids of a target are worth fetching: enough for the batches that are taken at once and, of what
        is quick, up to two more, so that the device never waits while the rest stays in the queue for other workers.
        None of one that is not served."""
        line = self._lines.get(target)
        if line is None:
            return 0
        batches = line.width + line.behind - len(line.alone)
        return max(0, batches * line.limits.max_batch - line.count())

    def spare(self, target: Target) -> int:
        """How many ids more than there is room for a message may bring: what takes AHEAD seconds, for to part a message
        takes its time."""
        line = self._lines[target]
        return int(AHEAD / line.period) * line.limits.max_batch

    def waiting(self, now: float) -> dict[Target, Waiting]:
        """What waits, by the targets that something waits for."""
        return {target: line.waiting() for target, line in self._open(now) if line.count() or line.alone}

    def take(self, now: float, *, idle: bool, among: Container[Target] | None = None) -> Draft | None:
        """The next batch that is due, the best priority first and then the oldest; None where none is. `among`: of
        these targets alone."""
        target = self._first(now, idle, among)
        if target is None:
            return None
        line = self._lines[target]
        if line.alone:
            return Draft(target, (line.alone.popleft()[0],), alone=True)
        return Draft(target, tuple(self._pop(line)))

    def take_behind(self, draft: Draft, now: float) -> list[Draft]:
        """The batches to be claimed with one that was just taken: what takes no time is claimed many at once. They are
        full, as it is, and of its target; whatever goes before one ends the row, and nothing follows what is alone."""
        target, taken = draft.target, list[Draft]()
        line = self._lines[target]
        while (
            self.single.get(target, now) <= now
            and len(taken) + 1 < line.width
            and line.count() >= line.limits.max_batch
            and not (draft.alone or line.alone)
            and self._first(now, idle=False) == target
        ):
            taken.append(Draft(target, tuple(self._pop(line))))
        return taken

    def due_at(self, now: float, among: Container[Target] | None = None) -> float | None:
        """When to ask again on a busy device: a batch becomes due, or is held back no more; None where none will."""
        moments = [line.oldest() + line.limits.max_wait for _, line in self._open(now, among) if line.count()]
        moments += [until for target, until in self.held_back.items() if until > now and target in self._lines]
        return min(moments, default=None)

    def _open(self, now: float, among: Container[Target] | None = None) -> Iterator[tuple[Target, _Line]]:
        """The lines that are neither paused nor held back."""
        for target, line in self._lines.items():
            if self.allowed(target, now) and (among is None or target in among):
                yield target, line

    def _first(self, now: float, idle: bool, among: Container[Target] | None = None) -> Target | None:
        """Whose batch is the next that is due."""
        due = [(*self._rank(line), target) for target, line in self._open(now, among) if self._due(line, now, idle)]
        return min(due, key=lambda each: each[:2])[2] if due else None

    @staticmethod
    def _due(line: _Line, now: float, idle: bool) -> bool:
        if line.alone:
            return True
        count = line.count()
        if not count:
            return False
        return idle or count >= line.limits.max_batch or now - line.oldest() >= line.limits.max_wait

    @staticmethod
    def _rank(line: _Line) -> tuple[int, float]:
        # Jobs that must be alone go first in their line, and their priority is not kept: by themselves they are normal.
        heads = list(line.heads())
        if line.alone:
            heads.append((Priority.NORMAL, line.alone[0][1]))
        return min(heads)

    @staticmethod
    def _pop(line: _Line) -> Iterator[str]:
        left = line.limits.max_batch
        for priority in sorted(line.by_priority):
            waiting = line.by_priority[priority]
            while waiting and left:
                left -= 1
                yield waiting.popleft()[0]
