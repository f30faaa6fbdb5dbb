"""Execute a batch: decode, predict, halve around what fails, collect. Pure: bytes in, bytes or a failure out.

One bad item must not fail its neighbours: what cannot be decoded, was rejected, or cannot be encoded fails alone, and
a batch that raises is halved until the item at fault is alone (log2 n more predict calls for one of n).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tundish.codec import Codec, DecodeError, EncodeError
from tundish.job import Code
from tundish.model import Batch, Model, Reject, Reporter

log = logging.getLogger(__name__)


class Item(NamedTuple):
    """An input as it lies in the store."""

    body: bytes
    content_type: str


class Done(NamedTuple):
    """An output as it shall lie in the store."""

    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an item has no output."""

    code: Code
    message: str
    details: dict[str, object] | None = None


Outcome = Done | Failed


def execute(
    model: Model[Any, Any], reads: Codec, writes: Codec, items: Sequence[Item], reporter: Reporter
) -> list[Outcome]:
    """The outcome of each item, in order."""
    outcomes: dict[int, Outcome] = {}
    inputs: dict[int, Any] = {}
    for position, item in enumerate(items):
        try:
            inputs[position] = reads.decode(item.body)
        except DecodeError as error:
            details: dict[str, object] | None = {"pointer": error.pointer} if error.pointer else None
            outcomes[position] = Failed(Code.INVALID_INPUT, str(error), details)
    if inputs:
        for position, result in _predict(model, inputs, reporter, len(inputs)).items():
            outcomes[position] = _written(writes, result)
    return [outcomes[position] for position in range(len(items))]


def _predict(model: Model[Any, Any], inputs: dict[int, Any], reporter: Reporter, whole: int) -> dict[int, Any]:
    """Each input's result: an output, a Reject, or a Failed where it fails even alone. The batch had `whole` items
    before it was halved."""
    positions = list(inputs)
    raised = None
    try:
        results = model.predict(Batch(list(inputs.values()), reporter, positions))
    except Exception as error:
        # The first of a batch is told with its traceback; in the halves the same would be told again.
        level = logging.WARNING if len(inputs) == whole else logging.DEBUG
        log.log(level, "%s@%s raised on %d items", model.name, model.version, len(inputs), exc_info=True)
        raised = _failed(error)
    # Out of the except block: the traceback would hold on to the memory that the halves need.
    if raised is not None:
        if len(inputs) == 1:
            return {positions[0]: raised}
        middle = len(inputs) // 2
        halves = positions[:middle], positions[middle:]
        return {
            position: result
            for half in halves
            for position, result in _predict(model, {each: inputs[each] for each in half}, reporter, whole).items()
        }
    if not isinstance(results, (list, tuple)) or len(results) != len(inputs):
        count = len(results) if isinstance(results, (list, tuple)) else type(results).__name__
        wrong = Failed(Code.MODEL_ERROR, f"predict gave {count} for {len(inputs)} items; it must give a list, one each")
        return dict.fromkeys(positions, wrong)
    return dict(zip(positions, results, strict=True))


def _failed(error: Exception) -> Failed:
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        return Failed(Code.OUT_OF_MEMORY, f"the device's memory does not hold this item alone: {error}")
    return Failed(Code.MODEL_ERROR, f"{kind}: {error}")


def _written(writes: Codec, result: Any) -> Outcome:
    if isinstance(result, Failed):
        return result
    if isinstance(result, Reject):
        return Failed(Code.REJECTED, result.reason)
    try:
        return Done(writes.encode(result), writes.content_type)
    except EncodeError as error:
        return Failed(Code.OUTPUT_INVALID, str(error))
