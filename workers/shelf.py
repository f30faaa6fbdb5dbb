"""The shelf: a worker's models under the memory of its device. What must make room goes to host memory where there is
room, so that a swap is a copy, and is loaded again where there is none.

The policy in `workers/turn.py` decides; here it is done, one move of `workers/moves.py` after another, by the thread
that predicts, so that nothing moves under a running batch, and torch's records of CUDA graphs stay with the thread that
made them.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from tundish import device
from tundish.artifact import Cache
from tundish.catalog import Served
from tundish.execute import DeviceLost
from workers.batch import Target, Waiting
from workers.entry import Entry, Place
from workers.gpu import Device
from workers.load import unload
from workers.moves import Moves
from workers.share import Share
from workers.stock import Stock, entries_of
from workers.turn import OTHERS, Policy, Turn, fewest, room_for, turn, wish, with_others

log = logging.getLogger(__name__)

#: A load that raised is tried again after 1 s, 2 s, 4 s … this many.
LONGEST_REST = 30.0
#: So often a load may raise in a row before the jobs that wait for it fail.
TRIES = 3
#: Characters of it that each heart-beat tells.
TOLD = 1000
#: Seconds in which room that was made for others is not taken back while they want it.
LEFT = 10.0

HINT = "set TUNDISH_DEVICE_MEMORY higher, or serve it from a pool whose devices have more"


class LoadFailed(Exception):
    """A model is not on the device. `final`: the jobs that asked for it fail; else they may be tried again."""

    def __init__(self, message: str, final: bool) -> None:
        super().__init__(message)
        self.final = final


class NoRoom(LoadFailed):
    """Others hold the device: it comes once they have made room, here or with them."""

    def __init__(self, message: str) -> None:
        super().__init__(message, False)


class Choice(NamedTuple):
    """The targets whose batches may be drafted now, and when that may change by time alone."""

    targets: frozenset[Target]
    look_at: float | None = None


#: Nobody's, until the shelf has changed.
NOBODY = Choice(frozenset())


class Shelf:
    """`share` says how much of the device there is, `host_budget` how much host memory; `cache` has the models'
    artifacts. `follow` is called with the targets that a worker may load now, whenever that changes: not those whose
    load has just failed. `policy` decides whose turn it is."""

    def __init__(
        self,
        served: Iterable[Served],
        device: Device,
        cache: Cache,
        share: Share,
        *,
        host_budget: Callable[[], float],
        follow: Callable[[Iterable[Target]], None] = lambda targets: None,
        policy: Policy = turn,
    ) -> None:
        self._share = share
        self._moves = Moves(device, cache, share)
        self._follow = follow
        self._policy = policy
        self.stock = Stock(served, device, share, host_budget)
        self._chosen = Turn()
        self._next: Turn | None = None  # drafted, and not yet brought
        self._moving = True  # until it is filled
        self._resting: set[Target] = set()
        self._all_there = False
        self._left_at = -LEFT  # when it last made room for others
        #: Called when what is on the device has changed.
        self.changed: Callable[[], None] = lambda: None
        #: Called with what is to be done between two batches, by the thread that predicts.
        self.soon: Callable[[Callable[[], None]], object] = lambda verb: None

    @property
    def complete(self) -> bool:
        """Every model is on the device, and nobody wants its room: nothing has to be decided."""
        return self._all_there and self._share.others.wish is None

    # Asked by the thread that claims.

    def choose(self, waiting: Mapping[Target, Waiting], now: float, idle: bool) -> Choice:
        """Whose batches may be drafted. A model is brought for a batch of its own, and only to an idle device: what
        was claimed ahead of it has run then."""
        if self._next or self._moving:
            return NOBODY
        self._wake(now)
        if idle:
            self._share.measure()
        failing = self.stock.failing()
        hopeful = {target: each for target, each in waiting.items() if target not in failing | self._resting}
        self._chosen = self._turn(hopeful, now)
        if self._chosen.target is None:
            there = {target for target, each in self.stock.entries.items() if each.there}
            return Choice(frozenset((there | failing) - self._resting), self._look_at(now))
        if not idle:
            return NOBODY
        if self._chosen.target == OTHERS:
            self._moving = True
            self.soon(partial(self._make_way, [self.stock.entries[each] for each in self._chosen.leaving]))
            return NOBODY
        return Choice(frozenset([self._chosen.target]))

    def drafted(self, target: Target) -> None:
        """A batch of what was chosen is on its way: it is brought for it, and nothing else is drafted until then."""
        if not self.stock.entries[target].there:
            self._next = self._chosen if self._chosen.target == target else Turn(target)

    def dropped(self, target: Target) -> None:
        """The batch that was drafted does not come."""
        drafted = self._next  # the other thread may have brought it meanwhile
        if drafted and drafted.target == target:
            self._next = None

    def _turn(self, hopeful: Mapping[Target, Waiting], now: float) -> Turn:
        """What the policy makes of it; other workers hear what is lacking here."""
        standings, budget, others = self.stock.standings(now), self._share.budget, self._share.others
        self._share.want(wish(standings, hopeful, budget))
        too_large = self.stock.too_large(budget)
        fitting = {target: each for target, each in hopeful.items() if target not in too_large}
        keep = now < self._left_at + LEFT
        return self._policy(*with_others(standings, fitting, budget, others.wish, keep), now)

    def _look_at(self, now: float) -> float | None:
        """When more may be drafted by time alone."""
        moments = [each.rests_until for each in self.stock.entries.values() if each.rests_until > now]
        moments += [] if self._chosen.look_at is None else [self._chosen.look_at]
        return min(moments, default=None)

    # Done by the thread that predicts.

    def fill(self) -> None:
        """Load what fits, the pinned ones first. The others are loaded too where nobody knows how large they are, so
        that they lie in host memory. What does not load is told in the log, and when a job asks for it."""
        for target in sorted(self.stock.entries, key=lambda each: not self.stock.entries[each].pinned):
            entry = self.stock.entries[target]
            self._moves.pull(entry)
            with self._alone():
                if entry.known is None or entry.size <= self.stock.free():
                    self._fill(target)
        self._settle()

    def load(self, served: Iterable[Served]) -> Mapping[Target, Entry]:
        """Models to exchange for those that are here, loaded beside them. Raises what a load raises: then nothing has
        changed."""
        entries = entries_of(served)
        try:
            for entry in entries.values():
                with self._alone():
                    self._load(entry, self.stock.entries.values())
        except BaseException:
            self._drop(entries.values())
            self._settle()
            raise
        return entries

    def exchange(self, entries: Mapping[Target, Entry]) -> None:
        """Unload all that is here, and hold these from now on. Nothing is drafted meanwhile."""
        self._drop(self.stock.entries.values())
        self.stock.exchange(entries)
        with self._alone():
            for entry in entries.values():
                if self.stock.free() < 0:
                    self._put_away(entry)
        self._settle()

    @contextmanager
    def lend(self, target: Target) -> Iterator[None]:
        """The model is on the device within the block. Raises LoadFailed and DeviceLost."""
        entry = self.stock.entries[target]
        if not entry.there:
            self._bring(target)
        try:
            yield
        finally:
            entry.use(time.monotonic())

    def close(self) -> None:
        """Unload everything."""
        for entry in self.stock.entries.values():
            if entry.place is not Place.NOWHERE:
                unload(entry.loaded.model)

    def _fill(self, target: Target) -> None:
        entry = self.stock.entries[target]
        try:
            self._put_there(target)
        except NoRoom as failure:
            log.info("%s", failure)
        except LoadFailed as failure:
            self._failed(entry, failure)
        else:
            if target in self.stock.hopeless():
                self._moves.unload(entry)
                self._failed(entry, self._does_not_fit(target))
            elif self.stock.free() < 0:
                self._put_away(entry)

    def _bring(self, target: Target) -> None:
        entry = self.stock.entries[target]
        # A batch that was fetched comes when it comes: what was decided for another's is not its own.
        drafted = self._next
        leaving = drafted.leaving if drafted and drafted.target == target else ()
        self._moving = True
        try:
            if entry.place is Place.NOWHERE:
                self._moves.pull(entry)  # while others may load
            with self._alone():
                self._bring_alone(target, leaving)
        except NoRoom as failure:
            log.info("%s", failure)
            entry.rests_until = time.monotonic() + 1.0
            raise
        except LoadFailed as failure:
            raise self._failed(entry, failure) from failure
        finally:
            self._settle()
        entry.failures = 0

    def _bring_alone(self, target: Target, leaving: Iterable[Target]) -> None:
        entry, began = self.stock.entries[target], time.monotonic()
        if target in self.stock.hopeless():
            raise self._does_not_fit(target)
        for each in leaving:
            self._put_away(self.stock.entries[each], entry)
        self._make_room(target)
        copied = entry.place is Place.HOST
        self._put_there(target)
        if copied:
            entry.copy_seconds = time.monotonic() - began
        else:
            entry.load_seconds = time.monotonic() - began
        self._make_room(target)

    def _make_way(self, leaving: Iterable[Entry]) -> None:
        """It is the turn of other workers on the device."""
        try:
            with self._alone():
                for entry in leaving:
                    self._put_away(entry)
            self._left_at = time.monotonic()
        except Exception:  # nobody waits for what comes of it; the next choice tries again
            log.exception("cannot make room for other workers")
            raise
        finally:
            self._settle()

    def _put_there(self, target: Target) -> None:
        """Onto the device, from wherever it lies. Raises LoadFailed and DeviceLost."""
        entry = self.stock.entries[target]
        if entry.place is Place.HOST:
            self._moves.to_device(entry)
        if not entry.there:
            try:
                self._load(entry, [self.stock.entries[each] for each in self.stock.others(target)])
            except DeviceLost:
                raise
            except Exception as error:
                raise self._cannot_be_loaded(target, error) from error
        self._share.hold(self.stock.held())
        self._share.measure()

    def _load(self, entry: Entry, others: Collection[Entry]) -> None:
        """Others make room where it does not fit beside them. Raises what the model's `load` raises, and DeviceLost."""
        try:
            return self._moves.load(entry)
        except Exception as error:
            if not (others and device.out_of_memory(error)):
                raise
            log.info("%s does not fit beside others, which make room: %s", entry.name, error)
        for each in others:
            self._put_away(each)
        self._moves.load(entry)

    def _put_away(self, entry: Entry, coming: Entry | None = None) -> None:
        """Off the device, for what is `coming`: to host memory where there is room and that frees it, else to
        nowhere."""
        if entry.there and entry.movable and self._make_host_room(entry, coming):
            self._moves.to_host(entry)
        elif entry.held:
            self._moves.unload(entry)

    def _make_room(self, target: Target) -> None:
        """For what is there, or comes, to fit."""
        now = time.monotonic()
        leaving = room_for(target, self.stock.others(target), self.stock.standings(now), {}, self._share.budget, now)
        if leaving is None:
            self._put_away(self.stock.entries[target])
            raise self._does_not_fit(target)
        for each in leaving:
            self._put_away(self.stock.entries[each], self.stock.entries[target])

    def _make_host_room(self, entry: Entry, coming: Entry | None) -> bool:
        """Whether the entry's weights may go to host memory; what is cheaper to load again leaves it for them. What is
        `coming` would be loaded at once, the others perhaps: its load counts twice."""
        kept = {target: each.in_host for target, each in self.stock.entries.items()}
        need = sum(kept.values()) - entry.in_host + entry.size - self.stock.host_budget()
        now = time.monotonic()
        costs = {
            target: (kept[target], 0.0 if each.there else each.load_seconds * (1 + (each is coming)), each.heat_at(now))
            for target, each in self.stock.entries.items()
            if kept[target] and each is not entry
        }
        leaving = fewest(need, costs)
        if leaving is None or sum(costs[each][1] for each in leaving) > entry.load_seconds:
            return False
        for each in leaving:
            other = self.stock.entries[each]
            if other.there and other.weights:
                other.weights.forget_host()
            else:
                self._moves.unload(other)
        return True

    def _drop(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.place is not Place.NOWHERE:
                self._moves.unload(entry)

    def _settle(self) -> None:
        self._all_there = all(each.there for each in self.stock.entries.values())
        if self._all_there:
            self._share.want(None)
        self._next, self._moving = None, False
        self._wake(time.monotonic())
        self.changed()

    def _wake(self, now: float) -> None:
        """Follow what may be loaded: what has failed to load rests for a while."""
        resting = {target for target, each in self.stock.entries.items() if each.rests_until > now}
        if resting != self._resting:
            self._resting = resting
            self._follow(self.stock.entries.keys() - resting)

    # Why one is not there.

    def _failed(self, entry: Entry, failure: LoadFailed) -> LoadFailed:
        """Others may go on: it is not tried for a while."""
        entry.failures, entry.error = entry.failures + 1, str(failure)[:TOLD]
        rest = min(LONGEST_REST, 2.0 ** (entry.failures - 1))
        entry.rests_until = time.monotonic() + rest
        log.error("%s; it is tried again in %.0f s at the soonest", failure, rest)
        return LoadFailed(str(failure), failure.final or entry.failures >= TRIES)

    def _cannot_be_loaded(self, target: Target, error: Exception) -> LoadFailed:
        entry = self.stock.entries[target]
        log.warning("%s cannot be loaded", entry.name, exc_info=error)
        full = device.out_of_memory(error)
        if full and self._share.others.held:
            # More than there was room for; nobody may know how much more.
            entry.known = max(entry.size, int(min(self.stock.free() + 1, self._share.best - self.stock.pinned(target))))
            return self._does_not_fit(target)
        hint = f"; {HINT}" if full else ""
        return LoadFailed(f"{entry.name} cannot be loaded: {type(error).__name__}: {error}{hint}", False)

    def _does_not_fit(self, target: Target) -> LoadFailed:
        entry, pinned, hopeless = self.stock.entries[target], self.stock.pinned(target), target in self.stock.hopeless()
        takes = f"{entry.name} takes {entry.size:,} bytes of the device's {self._share.best:,.0f}"
        if not hopeless and (held := self._share.others.held):
            return NoRoom(f"{takes}, of which other workers hold {held:,}")
        beside = f", of which pinned models take {pinned:,}" if pinned else ""
        return LoadFailed(f"{takes}{beside}; {HINT}", hopeless)

    # What is where.

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other worker changes what is on the device, and measures it; what is held then is told."""
        with self._share.alone():
            try:
                yield
            finally:
                self._share.hold(self.stock.held())
