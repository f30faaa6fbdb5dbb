import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundish import Batch, Model, Reject
from tundish.codec import codec_for
from tundish.execute import Done, Failed, Item, execute
from tundish.job import Code
from tundish.testing import Recorder


class Fussy(Model[int, float]):
    """Raises where a negative number is in the batch."""

    name = "fussy"
    version = "1"

    def __init__(self, error: type[Exception] = ValueError) -> None:
        self.error = error
        self.calls: list[list[int]] = []

    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        self.calls.append(list(batch))
        for index, item in enumerate(batch):
            batch.log(index, str(item))
        if any(item < 0 for item in batch):
            raise self.error("negative")
        return [Reject("zero") if item == 0 else math.inf if item == 99 else float(item) for item in batch]


def run(model: Model[Any, Any], bodies: Sequence[bytes], recorder: Recorder | None = None) -> list[Done | Failed]:
    items = [Item(body, "application/json") for body in bodies]
    return execute(model, codec_for(int), codec_for(float), items, recorder or Recorder())


def codes(outcomes: list[Done | Failed]) -> list[str | None]:
    return [outcome.code.value if isinstance(outcome, Failed) else None for outcome in outcomes]


def test_each_item_fails_or_succeeds_for_itself() -> None:
    outcomes = run(Fussy(), [b"1", b'"x"', b"-1", b"0", b"99", b"2"])
    assert codes(outcomes) == [None, "invalid_input", "model_error", "rejected", "output_invalid", None]
    assert outcomes[0] == Done(b"1.0", "application/json")
    assert outcomes[2] == Failed(Code.MODEL_ERROR, "ValueError: negative")
    assert outcomes[3] == Failed(Code.REJECTED, "zero")


@given(st.lists(st.integers(-1, 5).filter(bool), min_size=1, max_size=64))
def test_the_poisoned_fail_and_no_one_else(numbers: list[int]) -> None:
    outcomes = run(Fussy(), [str(number).encode() for number in numbers])
    assert [isinstance(outcome, Failed) for outcome in outcomes] == [number < 0 for number in numbers]


def test_one_poisoned_item_costs_a_logarithm_of_calls() -> None:
    model = Fussy()
    run(model, [b"1"] * 63 + [b"-1"])
    assert len(model.calls) == 1 + 2 * 6


def test_out_of_memory_is_told_from_a_fault_of_the_model() -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch names it."""

    assert codes(run(Fussy(OutOfMemoryError), [b"1", b"-1"])) == [None, "out_of_memory"]
    assert codes(run(Fussy(MemoryError), [b"-1"])) == ["out_of_memory"]


def test_what_ends_the_process_passes_through() -> None:
    class Ending(Fussy):
        def predict(self, batch: Batch[int]) -> list[float | Reject]:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(Ending(), [b"1"])


@pytest.mark.parametrize("results", [[], [1.0], [1.0] * 3, None, "xy"])
def test_a_wrong_number_of_results_fails_the_batch(results: Any) -> None:
    class Short(Fussy):
        def predict(self, batch: Batch[int]) -> list[float | Reject]:
            return results  # type: ignore[no-any-return]

    outcomes = run(Short(), [b"1", b"2"])
    assert codes(outcomes) == ["model_error", "model_error"]
    assert "for 2 items" in str(outcomes[0])


def test_reports_name_the_item_by_its_place_in_the_whole_batch() -> None:
    recorder = Recorder()
    run(Fussy(), [b'"x"', b"7", b"-1"], recorder)
    assert (1, "7") in recorder.logged
    assert (2, "-1") in recorder.logged
    assert {index for index, text in recorder.logged if text == "7"} == {1}
