"""Execute a batch: decode, part by cost, collate, predict, divide around what fails, collect. Pure: bytes in, bytes or
a failure out; a File in place of bytes is passed on, and not read.

One bad item must not fail its neighbours. What cannot be decoded, was rejected, or cannot be encoded fails alone. A
batch that raises is halved until the item at fault is alone (log2 n more predict calls for one of n), one that is too
large for the device's memory is halved until it fits, and one that ran over its time-out is run item by item.

A model with a `max_cost` gets its batch in parts, items of like cost together: a part costs as much as its largest item
times its count, for the others are padded to it.

Which predict calls a batch goes in, and what the model collates for each, may be made ahead, while another batch runs.
"""

import logging
import time
from asyncio import CancelledError
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from tundish import device as devices
from tundish import staging
from tundish.codec import Codec, DecodeError, EncodeError
from tundish.file import File
from tundish.job import Code
from tundish.media import JSON
from tundish.model import Batch, Model, Reject, Reporter

log = logging.getLogger(__name__)


class DeviceLost(Exception):
    """The device can run nothing more in this process; nothing of the batch may be trusted."""


class Item(NamedTuple):
    """An input as it lies in the store, and how many seconds a predict with it may take."""

    body: bytes | File
    content_type: str
    timeout: float = float("inf")


class Done(NamedTuple):
    """An output as it shall lie in the store."""

    body: bytes | File
    content_type: str


class Failed(NamedTuple):
    """Why an item has no output."""

    code: Code
    message: str
    details: dict[str, object] | None = None


class Canceled(NamedTuple):
    """The model was told that the item's caller cancelled it, or it was let go between two predict calls."""


Outcome = Done | Failed | Canceled
#: Guards one predict call that may take so many seconds.
Watch = Callable[[float], AbstractContextManager[None]]


class Ceilings:
    """How many items the device's memory holds, learnt from batches that it did not: for one model on one device, by
    the size of the largest input (its power of two)."""

    def __init__(self) -> None:
        self._most: dict[int, int] = {}

    @property
    def learnt(self) -> bool:
        """Whether there was such a batch."""
        return bool(self._most)

    def most(self, size: int) -> float:
        """How many items to run at once where the largest has `size` bytes: what holds for smaller ones holds too."""
        return min((most for bits, most in self._most.items() if bits <= size.bit_length()), default=float("inf"))

    def lower(self, size: int, count: int) -> None:
        lowered = int(min(count, self.most(size)))
        self._most = {**self._most, size.bit_length(): lowered}  # another thread may be reading them


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a model is run with: its device, as torch names it; how many items that holds; a lock for the model's
    `collate` and `cost`, for tokenizers have a state; what guards its calls; and where it may put Files."""

    device: str = "cpu"
    ceilings: Ceilings = field(default_factory=Ceilings)
    making: AbstractContextManager[object] = field(default_factory=Lock)
    watch: Watch = lambda timeout: nullcontext()
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """In which predict calls a batch goes: the positions of each one's items, why some are in none, and what the model
    has collated for a call."""

    calls: list[list[int]]
    failed: Mapping[int, Failed]
    collated: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def keep(self, wanted: Collection[int]) -> None:
        """The others are not run any more."""
        calls = [[position for position in call if position in wanted] for call in self.calls]
        for before, call in zip(self.calls, calls, strict=True):
            if call != before:
                self.collated.pop(tuple(before), None)
        self.calls[:] = filter(None, calls)


def execute(
    model: Model[Any, Any],
    reads: Codec,
    writes: Codec,
    items: Sequence[Item],
    reporter: Reporter,
    runtime: Runtime | None = None,
) -> list[Outcome]:
    """The outcome of each item, in order: decode, run, encode, which a worker does in three threads. Raises
    DeviceLost."""
    return encode(writes, run(model, items, decode(reads, items), reporter, runtime))


def decode(reads: Codec, items: Sequence[Item]) -> list[Any]:
    """The input of each item, in order; Failed where it has none."""
    inputs: list[Any] = []
    for item in items:
        try:
            inputs.append(reads.decode(item.body))
        except DecodeError as error:
            details: dict[str, object] | None = {"pointer": error.pointer} if error.pointer else None
            inputs.append(Failed(Code.INVALID_INPUT, str(error), details))
        except Exception as error:  # of the author's own type
            log.warning("an input of %s cannot be made", type(reads).__name__, exc_info=True)
            inputs.append(_failed(error))
    return inputs


def ahead(model: Model[Any, Any], items: Sequence[Item], inputs: Sequence[Any], runtime: Runtime) -> Plan:
    """The plan of a batch, with what the model collates for its calls: for `run` with the same. What collate raises is
    left for `run`, which makes it again."""
    wanted = _wanted(inputs)
    made = _plan(model, items, wanted, runtime)
    for positions in made.calls:
        with suppress(Exception, CancelledError), staging.beside(runtime.device):
            made.collated[tuple(positions)] = _collate(model, [wanted[each] for each in positions], runtime)
    return made


def run(
    model: Model[Any, Any],
    items: Sequence[Item],
    inputs: Sequence[Any],
    reporter: Reporter,
    runtime: Runtime | None = None,
    plan: Plan | None = None,
) -> list[Any]:
    """What the model gives for each input, in order: an output or a Reject; Failed or Canceled where it gives nothing.
    An input that is one of these two is not run. `plan` is what was made `ahead`, perhaps when more were to be run.
    Raises DeviceLost."""
    wanted, runtime = _wanted(inputs), runtime or Runtime()
    if plan:
        plan.keep(wanted)
    if not wanted:
        return list(inputs)
    if plan is None:
        timeout = min(items[place].timeout for place in wanted)
        with nullcontext() if model.max_cost is None else runtime.watch(timeout):  # else it calls no code of the model
            plan = _plan(model, items, wanted, runtime)
    results = _Run(model, items, wanted, plan, _Canceling(reporter), runtime).all()
    return [results[place] if place in wanted else input for place, input in enumerate(inputs)]


def encode(writes: Codec, results: Sequence[Any]) -> list[Outcome]:
    """The outcome of each result, in order; what is an outcome stays as it is."""
    return [_written(writes, result) for result in _fetched(results)]


def _wanted(inputs: Sequence[Any]) -> dict[int, Any]:
    """The inputs that are run, by their positions."""
    return {place: input for place, input in enumerate(inputs) if not isinstance(input, (Failed, Canceled))}


def _plan(model: Model[Any, Any], items: Sequence[Item], inputs: Mapping[int, Any], runtime: Runtime) -> Plan:
    """By cost, where the model has a `max_cost`, and by what the device's memory holds."""
    calls, failed = [list(inputs)] if inputs else [], dict[int, Failed]()
    if model.max_cost is not None:
        with runtime.making:
            costs, failed = _costs(model, inputs)
        calls = parts(costs, model.max_cost)
    return Plan([part for call in calls for part in _held(call, items, runtime.ceilings)], failed)


def _held(call: list[int], items: Sequence[Item], ceilings: Ceilings) -> list[list[int]]:
    """In parts that the device's memory holds."""
    most = ceilings.most(_largest(call, items)) if ceilings.learnt else float("inf")
    return _sliced(call, int(min(most, len(call))))


def _sliced(positions: list[int], size: int) -> list[list[int]]:
    return [positions[at : at + size] for at in range(0, len(positions), size)]


def _largest(positions: list[int], items: Sequence[Item]) -> int:
    return max(size_of(items[position].body) for position in positions)


def _costs(model: Model[Any, Any], inputs: Mapping[int, Any]) -> tuple[dict[int, float], dict[int, Failed]]:
    """By their positions; and those that it cannot be told of."""
    costs: dict[int, float] = {}
    failed: dict[int, Failed] = {}
    for position, input in inputs.items():
        try:
            costs[position] = _cost(model.cost(input))
        except Exception as error:
            if not failed:
                log.warning("%s@%s cannot tell what an item costs", model.name, model.version, exc_info=True)
            failed[position] = _failed(error)
    return costs, failed


def _collate(model: Model[Any, Any], inputs: Sequence[Any], runtime: Runtime) -> Any:
    with runtime.making:
        collated = model.collate(inputs)
    return staging.placed(collated, runtime.device)


def _cost(given: Any) -> float:
    cost = float(given)
    if not 0 <= cost < float("inf"):
        raise ValueError(f"cost gave {cost}; it must give a number of 0 or more")
    return cost


def parts(costs: Mapping[int, float], max_cost: int) -> list[list[int]]:
    """The positions of `costs` in parts, the dearest first. In a part of several, no item costs under half of the
    largest, so that at most half of it is padding, and the largest times the count is at most `max_cost`."""
    found: list[list[int]] = []
    largest = 0.0
    for position in sorted(costs, key=lambda each: -costs[each]):
        cost = costs[position]
        if not found or 2 * cost < largest or (len(found[-1]) + 1) * largest > max_cost:
            found.append([])
            largest = cost
        found[-1].append(position)
    return found


@dataclass(slots=True)
class _Canceling:
    """A reporter that remembers of which items it said that they are canceled: their results may be anything."""

    reporter: Reporter
    let_go: set[int] = field(default_factory=set)

    def progress(self, index: int, fraction: float) -> None:
        self.reporter.progress(index, fraction)

    def emit(self, index: int, piece: Any) -> None:
        self.reporter.emit(index, piece)

    def log(self, index: int, text: str) -> None:
        self.reporter.log(index, text)

    def canceled(self, index: int) -> bool:
        if self.reporter.canceled(index):
            self.let_go.add(index)
        return index in self.let_go

    def again(self, indexes: Sequence[int]) -> None:
        self.reporter.again(indexes)


@dataclass(slots=True)
class _Run:
    """One batch through its model, in one predict call or in several. Positions are those of the batch's items."""

    model: Model[Any, Any]
    items: Sequence[Item]
    inputs: Mapping[int, Any]
    plan: Plan
    reporter: _Canceling
    runtime: Runtime
    told: bool = False  # that predict raised

    def all(self) -> dict[int, Any]:
        results: dict[int, Any] = {**self.plan.failed}
        for call in self.plan.calls:
            held = _held(call, self.items, self.runtime.ceilings)  # less may be held than when the plan was made
            whole = held == [call] and len(call) == len(self.inputs)
            results |= self._predict(call) if whole else self._divided(call, held)
        return results

    def _predict(self, positions: list[int]) -> dict[int, Any]:
        """Each input's result: an output, a Reject, Canceled, or a Failed where it fails even alone."""
        count = len(positions)
        timeout = min(self.items[position].timeout for position in positions)
        began = time.monotonic()
        raised: Failed | None = None
        with self.runtime.watch(timeout):  # the device is asked what ails it, and may not answer
            try:
                results = self._call(positions)
            except (Exception, CancelledError) as error:
                if devices.lost(error):
                    raise DeviceLost(f"{self.model.name}@{self.model.version}: {devices.said(error)}") from error
                self._tell(count)
                raised = _failed(error)
        # Out of the except block: the traceback would hold on to the memory that the parts need.
        if time.monotonic() - began > timeout:
            over = Failed(Code.TIMEOUT, f"predict took over {timeout:g} s for this item alone")
            return {positions[0]: over} if count == 1 else self._divided(positions, _sliced(positions, 1))
        if raised is not None:
            return self._halved(positions, raised)
        if not isinstance(results, (list, tuple)) or len(results) != count:
            given = len(results) if isinstance(results, (list, tuple)) else type(results).__name__
            wrong = f"predict gave {given} for {count} items; it must give a list, one each"
            return dict.fromkeys(positions, Failed(Code.MODEL_ERROR, wrong))
        let_go = self.reporter.let_go.intersection(positions)
        return dict(zip(positions, results, strict=True)) | dict.fromkeys(let_go, Canceled())

    def _call(self, positions: list[int]) -> Any:
        inputs = [self.inputs[position] for position in positions]
        made, key = self.plan.collated, tuple(positions)
        collated = made.pop(key) if key in made else _collate(self.model, inputs, self.runtime)
        try:
            return self.model.predict(Batch(inputs, self.reporter, positions, self.runtime.folder, collated))
        finally:
            staging.settle(self.runtime.device)

    def _tell(self, count: int) -> None:
        """The first error of a batch, with its traceback; in the parts the same would be told again."""
        level = logging.DEBUG if self.told else logging.WARNING
        self.told = True
        log.log(level, "%s@%s raised on a batch of %d", self.model.name, self.model.version, count, exc_info=True)

    def _halved(self, positions: list[int], raised: Failed) -> dict[int, Any]:
        count = len(positions)
        if raised.code is Code.OUT_OF_MEMORY:
            self.plan.collated.clear()
            devices.free()
        if count == 1:
            return {positions[0]: raised}
        results = self._divided(positions, _sliced(positions, (count + 1) // 2))
        # Where one item is too large even alone, the others are not what the memory did not hold.
        alone = any(isinstance(each, Failed) and each.code is Code.OUT_OF_MEMORY for each in results.values())
        if raised.code is Code.OUT_OF_MEMORY and not alone:
            self.runtime.ceilings.lower(_largest(positions, self.items), (count + 1) // 2)
        return results

    def _divided(self, positions: list[int], calls: Sequence[list[int]]) -> dict[int, Any]:
        """Run in `calls`; whoever was canceled meanwhile is let go. What the items said before is void, and what was
        collated for all of them where they are not run together."""
        self.reporter.again(positions)
        results: dict[int, Any] = {}
        for call in calls:
            part = [each for each in call if not self.reporter.canceled(each)]
            if part != positions:
                self.plan.collated.pop(tuple(positions), None)
            if part:
                results |= self._predict(part)
        return {position: results.get(position, Canceled()) for position in positions}


def _failed(error: BaseException) -> Failed:
    if devices.out_of_memory(error):
        return Failed(Code.OUT_OF_MEMORY, f"the device's memory does not hold this item alone: {devices.said(error)}")
    return Failed(Code.MODEL_ERROR, f"{type(error).__name__}: {devices.said(error)}")


def _fetched(results: Sequence[Any]) -> Sequence[Any]:
    try:
        return staging.fetched(results)
    except Exception as error:  # one by one it may do
        if devices.lost(error):
            raise DeviceLost(devices.said(error)) from error
        log.warning("results cannot be fetched from the device together", exc_info=True)
        return results


def _written(writes: Codec, result: Any) -> Outcome:
    if isinstance(result, (Done, Failed, Canceled)):
        return result
    if isinstance(result, Reject):
        return Failed(Code.REJECTED, devices.said(result.reason))
    try:
        return encoded(writes, result)
    except EncodeError as error:
        return Failed(Code.OUTPUT_INVALID, str(error))
    except Exception as error:  # of the author's own type, or of the device that a tensor lies on
        if devices.lost(error):
            raise DeviceLost(devices.said(error)) from error
        log.warning("an output cannot be written", exc_info=True)
        return _failed(error)


def encoded(codec: Codec, value: Any) -> Done:
    """A value as it shall lie in the store. Raises EncodeError."""
    body = codec.encode(value)
    if not isinstance(body, File):
        return Done(body, codec.content_type)
    type = body.content_type or codec.content_type
    # Whatever lies in the store as plain JSON is shown within other JSON, unread: nobody has looked into a file.
    return Done(body, f"{JSON}; charset=utf-8" if type == JSON else type)


def size_of(body: bytes | File) -> int:
    """Bytes."""
    if not isinstance(body, File):
        return len(body)
    try:
        return body.path.stat().st_size
    except OSError:  # its model has taken it away
        return 0
