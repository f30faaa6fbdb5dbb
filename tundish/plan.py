"""Plan: in which predict calls a batch goes, and what its model collates for each; made ahead, while another batch
runs, or by the thread that predicts.

A model with a `max_cost` gets its batch in parts, items of like cost together: a part costs as much as its largest item
times its count, for the others are padded to it. No part is larger than what the device's memory is known to hold.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tundish import staging
from tundish.model import Model
from tundish.outcome import ENDING, Canceled, Failed, Item, failure_of, size_of
from tundish.runtime import Ceilings, Runtime

log = logging.getLogger(__name__)


@dataclass(slots=True)
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
        self.calls = list(filter(None, calls))


def ahead(model: Model[Any, Any], items: Sequence[Item], inputs: Sequence[Any], runtime: Runtime) -> Plan:
    """The plan of a batch, with what the model collates for its calls: for `run` with the same. What collate raises is
    left for `run`, which makes it again."""
    wanted = wanted_of(inputs)
    made = plan_of(model, items, wanted, runtime)
    for positions in made.calls:
        with suppress(BaseException), staging.beside(runtime.device):
            made.collated[tuple(positions)] = collate(model, [wanted[each] for each in positions], runtime)
    return made


def wanted_of(inputs: Sequence[Any]) -> dict[int, Any]:
    """The inputs that are run, by their positions."""
    return {place: input for place, input in enumerate(inputs) if not isinstance(input, (Failed, Canceled))}


def plan_of(model: Model[Any, Any], items: Sequence[Item], inputs: Mapping[int, Any], runtime: Runtime) -> Plan:
    """In calls by cost, where the model has a `max_cost`, and by what the device's memory holds."""
    calls, failed = [list(inputs)] if inputs else [], dict[int, Failed]()
    if model.max_cost is not None:
        with runtime.making:
            costs, failed = _costs(model, inputs)
        calls = parts(costs, model.max_cost)
    return Plan([part for call in calls for part in held(call, items, runtime.ceilings)], failed)


def held(call: list[int], items: Sequence[Item], ceilings: Ceilings) -> list[list[int]]:
    """In parts that the device's memory holds."""
    if not ceilings.learnt:
        return [call]
    return sliced(call, int(min(ceilings.most(largest_of(call, items)), len(call))))


def sliced(positions: list[int], size: int) -> list[list[int]]:
    """In parts of `size`."""
    return [positions[at : at + size] for at in range(0, len(positions), size)]


def largest_of(positions: list[int], items: Sequence[Item]) -> int:
    """Bytes of the largest input."""
    return max(size_of(items[position].body) for position in positions)


def _costs(model: Model[Any, Any], inputs: Mapping[int, Any]) -> tuple[dict[int, float], dict[int, Failed]]:
    """By their positions; and those that it cannot be told of."""
    costs: dict[int, float] = {}
    failed: dict[int, Failed] = {}
    for position, input in inputs.items():
        try:
            costs[position] = _cost(model.cost(input))
        except ENDING:
            raise
        except BaseException as error:
            if not failed:
                log.warning("%s@%s cannot tell what an item costs", model.name, model.version, exc_info=True)
            failed[position] = failure_of(error)
    return costs, failed


def collate(model: Model[Any, Any], inputs: Sequence[Any], runtime: Runtime) -> Any:
    """What the model makes of the inputs of a call, on its device."""
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
