"""Whose turn it is on a device that does not hold all its models: pure. Time is passed in.

A swap costs seconds in which the device computes nothing, so what is loaded is served until a swap is worth it: at once
where it takes the place of a model that nobody asks for; else once the oldest job has waited for a multiple of what
the swap costs, the sooner the more jobs wait. For the same multiple nothing else changes after a swap, so that swaps
take a small share of the time however many models want in; and the one that has waited the longest for its worth comes
first, so that each has its turn.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from workers.batch import Target, Waiting

#: A full batch waits for so many times the seconds of its swap, and so long is served between two swaps: a ninth of
#: the time goes to them at most.
WORTH = 8.0
#: A lone job waits so many times longer than a full batch at most.
LONE = 4.0
#: Seconds without a use after which nobody seems to ask for a model, however long bringing it back would take.
QUIET = 5.0
#: Seconds that a job waits at most before its model is next, and that are served at most before another swap.
LONGEST = 60.0


@dataclass(frozen=True, slots=True)
class Standing:
    """A model as the shelf knows it: `size` in bytes of the device, `reload` the seconds that bringing it takes.
    `since` it is there, `used` when its last batch ended; `heat` counts its batches lately. `residue` are the bytes
    that it keeps though it is not there."""

    size: int
    reload: float
    there: bool = False
    pinned: bool = False
    since: float = 0.0
    used: float = 0.0
    heat: float = 0.0
    residue: int = 0

    @property
    def held(self) -> int:
        """Bytes of the device that it takes now."""
        return self.size if self.there else self.residue


class Wish(NamedTuple):
    """Bytes of its device that a worker lacks for a model that jobs wait for, and since when they do; `math.inf` where
    it could do without, and puts up with what others do not need."""

    size: int
    since: float


#: What others on the device wish for, as one more model: its turn comes like that of any other.
OTHERS = Target("", "")


class Turn(NamedTuple):
    """The model that is brought next, and what leaves for it. None: what is there is served, and nothing else changes
    before `look_at`."""

    target: Target | None = None
    leaving: tuple[Target, ...] = ()
    look_at: float | None = None


#: What decides: standings, what waits, the budget in bytes, the time.
Policy = Callable[[Mapping[Target, Standing], Mapping[Target, Waiting], float, float], Turn]


def turn(shelf: Mapping[Target, Standing], waiting: Mapping[Target, Waiting], budget: float, now: float) -> Turn:
    """Whose turn it is. What does not fit beside the pinned models has none."""
    absent = [target for target in waiting if not shelf[target].there]
    if not absent:
        return Turn()

    def ripe_at(target: Target) -> float:
        return waiting[target].since + patience(shelf[target], waiting[target])

    first = min(absent, key=ripe_at)
    # Once one is ripe no other comes before it, or small ones would keep a large one out for good.
    for target in [first] if ripe_at(first) <= now else sorted(absent, key=lambda each: waiting[each].since):
        quiet = [each for each, one in shelf.items() if each not in waiting and _quiet_at(one) <= now]
        if (leaving := room_for(target, quiet, shelf, waiting, budget, now)) is not None:
            return Turn(target, leaving)
    there = [one for one in shelf.values() if one.there]
    swapped_at = max((one.since for one in there), default=0.0)
    # Where a batch takes longer than a swap is worth, who was not brought has its batch between two swaps too.
    unserved = any(shelf[each].there and shelf[each].used < swapped_at for each in waiting)
    served_at = swapped_at + (LONGEST if unserved else min(LONGEST, WORTH * shelf[first].reload))
    leaving = room_for(first, shelf, shelf, waiting, budget, now)
    if leaving is not None and max(ripe_at(first), served_at) <= now:
        return Turn(first, leaving)
    moments = [served_at, *map(ripe_at, absent), *map(_quiet_at, there)]
    return Turn(look_at=min((moment for moment in moments if now < moment < math.inf), default=None))


def patience(standing: Standing, waiting: Waiting) -> float:
    """Seconds that a model's oldest job waits at most for others to be served first."""
    return min(LONGEST, WORTH * standing.reload * min(LONE, 1 / min(1.0, waiting.batches)))


def room_for(
    target: Target,
    free: Iterable[Target],
    shelf: Mapping[Target, Standing],
    waiting: Mapping[Target, Waiting],
    budget: float,
    now: float,
) -> tuple[Target, ...] | None:
    """Which of `free` leave so that `target` fits: those whose loss costs the fewest seconds a byte. None where even
    all of them are too few."""
    others = {each: one for each, one in shelf.items() if each != target}
    need = shelf[target].size - budget + sum(one.held for one in others.values())
    gone = {each: others[each] for each in free if each in others and others[each].held and not others[each].pinned}
    worth = {each: loss(one, waiting.get(each), now) for each, one in gone.items()}
    return fewest(need, {each: (one.held, worth[each], one.since) for each, one in gone.items()})


def wish(shelf: Mapping[Target, Standing], waiting: Mapping[Target, Waiting], budget: float) -> Wish | None:
    """What others on the device have to make room for: first for what does not fit even where all others leave."""
    absent = sorted((each for each in waiting if not shelf[each].there), key=lambda each: waiting[each].since)
    free = budget - sum(one.held for one in shelf.values())
    loose = sum(one.held for one in shelf.values() if not one.pinned)
    wishes = [Wish(shelf[each].size - loose, waiting[each].since) for each in absent]
    wishes += [Wish(shelf[each].size, math.inf) for each in absent if shelf[each].size > free]
    return next((each for each in wishes if each.size > 0), None)


def with_others(
    shelf: Mapping[Target, Standing],
    waiting: Mapping[Target, Waiting],
    budget: float,
    theirs: Wish | None,
    keep: bool,
) -> tuple[Mapping[Target, Standing], Mapping[Target, Waiting], float]:
    """What waits beside the wish of others, as far as it can be granted, and the budget of both. `keep`: what is free
    was left to them, and is not taken back."""
    if theirs is None:
        return shelf, waiting, budget
    held = sum(one.held for one in shelf.values())
    loose = [one for one in shelf.values() if one.held and not one.pinned]
    size = math.floor(min(theirs.size, budget - held + sum(one.held for one in loose)))
    if size > budget - held:
        reload = max(one.reload for one in loose)
        return {**shelf, OTHERS: Standing(size, reload)}, {**waiting, OTHERS: Waiting(1.0, theirs.since)}, budget
    return shelf, waiting, max(held, budget - theirs.size) if keep else budget


def fewest(need: float, costs: Mapping[Target, tuple[int, float, float]]) -> tuple[Target, ...] | None:
    """Of `costs` (bytes, seconds lost, and since when it is there), those to give up for `need` bytes, by the least
    seconds a byte and then the longest there; None where all are too few."""
    order = sorted(costs, key=lambda each: (costs[each][1] / max(1, costs[each][0]), costs[each][2]))
    chosen: list[Target] = []
    for each in order:
        if need <= 0:
            break
        chosen.append(each)
        need -= costs[each][0]
    if need > 0:
        return None
    # The last one may have freed enough for an earlier one to stay.
    for each in sorted(chosen, key=lambda each: -costs[each][1]):
        if costs[each][0] <= -need:
            chosen.remove(each)
            need += costs[each][0]
    return tuple(chosen)


def loss(standing: Standing, waiting: Waiting | None, now: float) -> float:
    """Seconds that it costs, most likely, to let a model go: what bringing it back takes, the surer the more it was
    used lately; where jobs wait for it, the more the more they are and the older."""
    if waiting is None:
        return standing.reload * (1 - 2**-standing.heat)
    return standing.reload * (1 + min(1.0, waiting.batches) + min(1.0, max(0.0, now - waiting.since) / LONGEST))


def _quiet_at(standing: Standing) -> float:
    """From when on nobody seems to ask for it: it was not used for as long as bringing it back would take."""
    return standing.used + min(QUIET, standing.reload)
