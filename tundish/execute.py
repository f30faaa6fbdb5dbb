"""Execute a batch: decode, plan, predict, divide around what fails, collect. Bytes in, bytes or a failure out: no store
and no queue is known here. A File in place of bytes is passed on, and not read.

One bad item must not fail its neighbours. What cannot be decoded, was rejected, or cannot be encoded fails alone. A
batch that raises is halved until the item at fault is alone (log2 n more predict calls for one of n), one that is too
large for the device's memory is halved until it fits, and what ran over its time-out is run again alone.

Which predict calls a batch goes in, and what the model collates for each, says `tundish/plan.py`.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from tundish import device, staging
from tundish.codec import Codec, DecodeError, EncodeError
from tundish.file import File
from tundish.job import Code
from tundish.media import JSON
from tundish.model import Batch, Model, Reject, Reporter
from tundish.outcome import ENDING, Canceled, Done, Failed, Item, Outcome, failure_of
from tundish.plan import Plan, collate, held, largest_of, plan_of, sliced, wanted_of
from tundish.runtime import Runtime

log = logging.getLogger(__name__)


class DeviceLost(Exception):
    """The device can run nothing more in this process; nothing of the batch may be trusted."""


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
        except ENDING:
            raise
        except BaseException as error:  # of the author's own type
            log.warning("an input of %s cannot be made", type(reads).__name__, exc_info=True)
            inputs.append(failure_of(error))
    return inputs


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
    wanted, runtime = wanted_of(inputs), runtime or Runtime()
    if plan:
        plan.keep(wanted)
    if not wanted:
        return list(inputs)
    if plan is None:
        timeout = min(items[place].timeout for place in wanted)
        with nullcontext() if model.max_cost is None else runtime.watch(timeout):  # else it calls no code of the model
            plan = plan_of(model, items, wanted, runtime)
    results = _Run(model, items, wanted, plan, _Canceling(reporter), runtime).all()
    return [results[place] if place in wanted else input for place, input in enumerate(inputs)]


def encode(writes: Codec, results: Sequence[Any]) -> list[Outcome]:
    """The outcome of each result, in order; what is an outcome stays as it is."""
    return [_written(writes, result) for result in _fetched(results)]


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
            parts = held(call, self.items, self.runtime.ceilings)  # less may be held than when the plan was made
            whole = parts == [call] and len(call) == len(self.inputs)
            results |= self._predict(call) if whole else self._divided(call, parts)
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
            except ENDING:
                raise
            except BaseException as error:
                if device.lost(error):
                    raise DeviceLost(f"{self.model.name}@{self.model.version}: {device.said(error)}") from error
                self._tell(count)
                raised = failure_of(error)
        # Out of the except block: the traceback would hold on to the memory that the parts need.
        took = time.monotonic() - began
        if took > timeout and count == 1:
            return {positions[0]: Failed(Code.TIMEOUT, f"predict took over {timeout:g} s for this item alone")}
        if raised is not None:
            return self._divided(positions, sliced(positions, 1)) if took > timeout else self._halved(positions, raised)
        if not isinstance(results, (list, tuple)) or len(results) != count:
            what = len(results) if isinstance(results, (list, tuple)) else type(results).__name__
            wrong = f"predict gave {what} for {count} items; it must give a list, one each"
            return dict.fromkeys(positions, Failed(Code.MODEL_ERROR, wrong))
        let_go = self.reporter.let_go.intersection(positions)
        given = dict(zip(positions, results, strict=True)) | dict.fromkeys(let_go, Canceled())
        if took <= timeout:
            return given
        late = [position for position in positions if took > self.items[position].timeout]
        return given | self._divided(late, sliced(late, 1))

    def _call(self, positions: list[int]) -> Any:
        inputs = [self.inputs[position] for position in positions]
        made, key = self.plan.collated, tuple(positions)
        collated = made.pop(key) if key in made else collate(self.model, inputs, self.runtime)
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
            device.free()
        if count == 1:
            return {positions[0]: raised}
        results = self._divided(positions, sliced(positions, (count + 1) // 2))
        # Where one item is too large even alone, the others are not what the memory did not hold.
        alone = any(isinstance(each, Failed) and each.code is Code.OUT_OF_MEMORY for each in results.values())
        if raised.code is Code.OUT_OF_MEMORY and not alone:
            self.runtime.ceilings.lower(largest_of(positions, self.items), (count + 1) // 2)
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


def _fetched(results: Sequence[Any]) -> Sequence[Any]:
    try:
        return staging.fetched(results)
    except Exception as error:  # one by one it may do
        if device.lost(error):
            raise DeviceLost(device.said(error)) from error
        log.warning("results cannot be fetched from the device together", exc_info=True)
        return results


def _written(writes: Codec, result: Any) -> Outcome:
    if isinstance(result, (Done, Failed, Canceled)):
        return result
    if isinstance(result, Reject):
        return Failed(Code.REJECTED, device.said(result.reason))
    try:
        return encoded(writes, result)
    except EncodeError as error:
        return Failed(Code.OUTPUT_INVALID, str(error))
    except ENDING:
        raise
    except BaseException as error:  # of the author's own type, or of the device that a tensor lies on
        if device.lost(error):
            raise DeviceLost(device.said(error)) from error
        log.warning("an output cannot be written", exc_info=True)
        return failure_of(error)


def encoded(codec: Codec, value: Any) -> Done:
    """A value as it shall lie in the store. Raises EncodeError."""
    body = codec.encode(value)
    if not isinstance(body, File):
        return Done(body, codec.content_type)
    type = body.content_type or codec.content_type
    # Whatever lies in the store as plain JSON is shown within other JSON, unread: nobody has looked into a file.
    return Done(body, f"{JSON}; charset=utf-8" if type == JSON else type)
