"""In which predict calls a batch goes, and what is collated for each, ahead or as it runs."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundish import Batch, Model, Reject
from tundish.execute import run
from tundish.job import Code
from tundish.outcome import Canceled, Failed, Item
from tundish.plan import Plan, ahead, parts
from tundish.runtime import Ceilings, Runtime
from tundish.testing import Recorder


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 1000))
def test_parts_hold_all_items_within_their_cost_and_half_of_padding(costs: list[int], max_cost: int) -> None:
    found = parts(dict(enumerate(costs)), max_cost)
    assert sorted(position for part in found for position in part) == list(range(len(costs)))
    for part in found:
        largest = max(costs[position] for position in part)
        assert len(part) == 1 or largest * len(part) <= max_cost
        assert all(2 * costs[position] >= largest for position in part)
    merged = [max(costs[position] for position in part) for part in found]
    assert merged == sorted(merged, reverse=True)


class Summing(Model[int, int]):
    """Sums what it has collated, of the whole call; raises where a negative number is in it."""

    name = "summing"
    version = "1"

    def __init__(self) -> None:
        self.collates: list[list[int]] = []
        self.refused: list[int] = []  # what collate raises at

    def collate(self, items: Sequence[int]) -> tuple[int, int]:
        self.collates.append(list(items))
        if set(self.refused).intersection(items):
            raise ValueError("not this one")
        return sum(items), len(items)

    def predict(self, batch: Batch[int]) -> list[int | Reject]:
        if min(batch) < 0:
            raise ValueError("negative")
        total, count = batch.collated
        assert count == len(batch)
        return [total] * count


class SummingByCost(Summing):
    max_cost = 20

    def cost(self, item: int) -> int:
        return item


def summed(model: Model[Any, Any], inputs: list[Any], plan: Plan | None = None) -> list[Any]:
    return run(model, empty(inputs), inputs, Recorder(), plan=plan)


def empty(inputs: list[Any]) -> list[Item]:
    return [Item(b"", "application/json")] * len(inputs)


def test_predict_finds_what_was_collated_for_its_own_call() -> None:
    assert summed(model := Summing(), [1, 2, 3]) == [6, 6, 6]
    assert model.collates == [[1, 2, 3]]
    assert summed(model := SummingByCost(), [2, 10, 9]) == [2, 19, 19]
    assert model.collates == [[10, 9], [2]]


@pytest.mark.parametrize("kind", [Summing, SummingByCost])
def test_what_was_collated_ahead_is_not_collated_again(kind: type[Summing]) -> None:
    model, inputs = kind(), [2, 10, Failed(Code.INVALID_INPUT, "no number"), 9]
    plan = ahead(model, empty(inputs), inputs, Runtime())
    calls = list(model.collates)
    assert summed(model, inputs, plan) == summed(kind(), inputs)
    assert model.collates == calls
    assert not plan.collated  # a call takes what is its own


def test_a_batch_that_is_divided_is_collated_anew_for_its_parts() -> None:
    model, inputs = Summing(), [1, 2, -3, 4]
    results = summed(model, inputs, ahead(model, empty(inputs), inputs, Runtime()))
    assert results == [3, 3, Failed(Code.MODEL_ERROR, "ValueError: negative"), 4]
    assert model.collates == [[1, 2, -3, 4], [1, 2], [-3, 4], [-3], [4]]


def test_what_collate_raises_fails_the_item_at_fault_alone() -> None:
    model, inputs = Summing(), [1, 2, 3, 4]
    model.refused = [3]
    plan = ahead(model, empty(inputs), inputs, Runtime())
    assert not plan.collated
    assert summed(model, inputs, plan) == [3, 3, Failed(Code.MODEL_ERROR, "ValueError: not this one"), 4]


def test_a_cost_that_cannot_be_told_ahead_fails_its_item() -> None:
    model, inputs = SummingByCost(), [1, math.nan]
    results = summed(model, inputs, ahead(model, empty(inputs), inputs, Runtime()))
    assert results[0] == 1
    assert isinstance(results[1], Failed)


def test_memory_that_is_short_is_not_taken_by_what_other_calls_have_collated() -> None:
    plans = list[Plan]()

    class Large(SummingByCost):
        def predict(self, batch: Batch[int]) -> list[int | Reject]:
            if len(batch) > 1:
                raise MemoryError
            assert not plans[0].collated
            return super().predict(batch)

    model, inputs = Large(), [10, 9, 2, 1]
    plans.append(ahead(model, empty(inputs), inputs, Runtime()))
    assert len(plans[0].collated) == 2
    assert summed(model, inputs, plans[0]) == [10, 9, 2, 1]


def test_a_cost_that_hangs_is_over_its_time_out() -> None:
    guarded = list[float]()

    class Watched(SummingByCost):
        def cost(self, item: int) -> int:
            assert guarded == [7.0]
            return super().cost(item)

    @contextmanager
    def watch(timeout: float) -> Iterator[None]:
        guarded.append(timeout)
        yield
        guarded.remove(timeout)

    items = [Item(b"", "application/json", 7.0), Item(b"", "application/json", 8.0)]
    assert run(Watched(), items, [1, 1], Recorder(), Runtime(watch=watch)) == [2, 2]
    assert run(Watched(), items, [Canceled()] * 2, Recorder(), Runtime(watch=watch)) == [Canceled()] * 2


class Narrow(Summing):
    """On a device that holds two items."""

    def predict(self, batch: Batch[int]) -> list[int | Reject]:
        if len(batch) > 2:
            raise MemoryError
        return super().predict(batch)


def test_what_the_memory_holds_is_collated_ahead_and_no_more() -> None:
    model, inputs, ceilings = Narrow(), [1, 2, 3, 4], Ceilings()
    run(model, empty(inputs), inputs, Recorder(), Runtime(ceilings=ceilings))
    model.collates.clear()
    plan = ahead(model, empty(inputs), inputs, Runtime(ceilings=ceilings))
    assert run(model, empty(inputs), inputs, Recorder(), Runtime(ceilings=ceilings), plan) == [3, 3, 7, 7]
    assert model.collates == [[1, 2], [3, 4]]


@pytest.mark.parametrize("why", ["less is held", "canceled"])
def test_what_was_collated_for_a_call_that_is_not_made_takes_no_memory(why: str) -> None:
    plans, ceilings, recorder = list[Plan](), Ceilings(), Recorder()

    class Watchful(SummingByCost):
        def predict(self, batch: Batch[int]) -> list[int | Reject]:
            assert not plans[0].collated
            return super().predict(batch)

    model, inputs = Watchful(), [9, 8, 1]
    plans.append(ahead(model, empty(inputs), inputs, Runtime()))
    assert list(plans[0].collated) == [(0, 1), (2,)]
    del plans[0].collated[2,]
    if why == "canceled":
        recorder.cancel.add(0)
    else:
        ceilings.lower(0, 1)
    results = run(model, empty(inputs), inputs, recorder, Runtime(ceilings=ceilings), plans[0])
    assert results == [Canceled() if why == "canceled" else 9, 8, 1]
