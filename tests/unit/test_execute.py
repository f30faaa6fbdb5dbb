import math
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundish import Batch, Model, Reject
from tundish.codec import codec_for
from tundish.execute import DeviceLost, execute
from tundish.file import File
from tundish.job import Code
from tundish.outcome import Canceled, Done, Failed, Item, Outcome
from tundish.runtime import Ceilings, Runtime
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


def run(model: Model[Any, Any], bodies: Sequence[bytes], recorder: Recorder | None = None) -> list[Outcome]:
    items = [Item(body, "application/json") for body in bodies]
    return execute(model, codec_for(int), codec_for(float), items, recorder or Recorder())


def codes(outcomes: list[Outcome]) -> list[str | None]:
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


class Touchy:
    """A type of an author that raises what it likes."""

    content_type = "application/json"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def decode(self, body: bytes) -> Any:
        raise self.error

    encode = decode


def test_an_author_s_type_that_raises_fails_its_item_alone() -> None:
    touchy: Any = Touchy(KeyError("x"))
    items = [Item(b"1", "application/json")]
    for reads, writes in ((touchy, codec_for(float)), (codec_for(int), touchy)):
        [outcome] = execute(Fussy(), reads, writes, items, Recorder())
        assert outcome == Failed(Code.MODEL_ERROR, "KeyError: 'x'")
    lost: Any = Touchy(RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(DeviceLost):
        execute(Fussy(), codec_for(int), lost, items, Recorder())


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


class Odd(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class PanicException(BaseException):
    """As a panic of Rust comes."""


@pytest.mark.parametrize("error", [Mute, Odd, CancelledError, PanicException])
def test_whatever_is_raised_fails_its_item_alone(error: Any) -> None:
    outcomes = run(Fussy(error), [b"1", b"-1", b"2"])
    assert codes(outcomes) == [None, "model_error", None]
    touchy: Any = Touchy(error())
    assert codes(execute(Fussy(), touchy, touchy, [Item(b"1", "application/json")], Recorder())) == ["model_error"]


@pytest.mark.parametrize(
    ("reason", "message"), [(ValueError("too long"), "too long"), (5, "5"), (None, "None"), (Mute(), "Mute")]
)
def test_a_reason_of_another_type_is_told_as_text(reason: Any, message: str) -> None:
    class Choosy(Fussy):
        def predict(self, batch: Batch[int]) -> list[float | Reject]:
            return [Reject(reason) for _ in batch]

    assert run(Choosy(), [b"1"]) == [Failed(Code.REJECTED, message)]


def test_an_item_whose_cost_panics_fails_alone() -> None:
    class Costly(Fussy):
        max_cost = 10

        def cost(self, item: int) -> int:
            if item == 7:
                raise PanicException
            return 1

    assert codes(run(Costly(), [b"1", b"7", b"2"])) == [None, "model_error", None]


@pytest.mark.parametrize("cost", [None, "much", math.nan, math.inf, -1, [1]])
def test_an_item_without_a_cost_fails_alone(cost: Any) -> None:
    class Costly(Fussy):
        max_cost = 10

        def cost(self, item: int) -> int:
            return cost if item == 7 else 1

    assert codes(run(Costly(), [b"1", b"7", b"2"])) == [None, "model_error", None]


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


class Slow(Model[int, float]):
    """Is slow where a negative number is in the batch."""

    name = "slow"
    version = "1"

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        self.calls.append(list(batch))
        if any(item < 0 for item in batch):
            Event().wait(0.1)
        return [float(item) for item in batch]


def test_past_their_time_out_items_run_again_alone_and_their_neighbours_do_not() -> None:
    model = Slow()
    watched: list[float] = []

    @contextmanager
    def watch(timeout: float) -> Iterator[None]:
        watched.append(timeout)
        yield

    items = [Item(b"1", "", 0.07), Item(b"-1", "", 0.05), Item(b"-2", "", 9.0), Item(b"3", "")]
    outcomes = execute(model, codec_for(int), codec_for(float), items, Recorder(), Runtime(watch=watch))
    assert codes(outcomes) == [None, "timeout", None, None]
    assert model.calls == [[1, -1, -2, 3], [1], [-1]]
    assert watched == [0.05, 0.07, 0.05]


class Small(Model[int, float]):
    """Its device holds `holds` items; a negative one is too large for it even alone."""

    name = "small"
    version = "1"

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.calls: list[int] = []

    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        self.calls.append(len(batch))
        if len(batch) > self.holds or any(item < 0 for item in batch):
            raise MemoryError("told to")
        return [float(item) for item in batch]


def predicted(model: Model[Any, Any], numbers: Sequence[int], ceilings: Ceilings) -> list[str | None]:
    items = [Item(str(number).encode(), "") for number in numbers]
    return codes(execute(model, codec_for(int), codec_for(float), items, Recorder(), Runtime(ceilings=ceilings)))


def test_what_the_memory_did_not_hold_is_halved_and_remembered() -> None:
    model, ceilings = Small(3), Ceilings()
    assert predicted(model, [1] * 8, ceilings) == [None] * 8
    assert model.calls == [8, 4, 2, 2, 4, 2, 2]
    model.calls.clear()
    assert predicted(model, [1] * 5, ceilings) == [None] * 5
    assert model.calls == [2, 2, 1]


def test_one_item_too_large_alone_lowers_no_ceiling_for_others() -> None:
    model, ceilings = Small(8), Ceilings()
    assert predicted(model, [1, 1, -1, 1], ceilings) == [None, None, "out_of_memory", None]
    model.calls.clear()
    assert predicted(model, [1] * 8, ceilings) == [None] * 8
    assert model.calls == [8]


def test_a_ceiling_of_small_items_holds_for_larger_ones_and_not_the_other_way() -> None:
    ceilings = Ceilings()
    ceilings.lower(1000, 4)
    assert [ceilings.most(size) for size in (10, 511, 512, 1000, 5000)] == [math.inf, math.inf, 4, 4, 4]
    ceilings.lower(5000, 2)
    assert [ceilings.most(size) for size in (511, 1000, 5000)] == [math.inf, 4, 2]
    ceilings.lower(1000, 1)
    assert ceilings.most(5000) == 1


def test_a_poisoned_device_ends_it_all() -> None:
    class Poisoned(Fussy):
        def predict(self, batch: Batch[int]) -> list[float | Reject]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceLost, match="illegal memory access"):
        run(Poisoned(), [b"1", b"2"])


def test_what_was_canceled_is_let_go_when_the_model_asks_and_between_calls() -> None:
    class Asks(Fussy):
        def predict(self, batch: Batch[int]) -> list[float | Reject]:
            self.calls.append(list(batch))
            if 7 in batch and len(batch) > 1:
                raise ValueError("halve me")
            return [-1.0 if batch.canceled(index) else float(item) for index, item in enumerate(batch)]

    recorder = Recorder()
    recorder.cancel = {1}
    model = Asks()
    assert run(model, [b"1", b"2", b"3"], recorder) == [
        Done(b"1.0", "application/json"),
        Canceled(),
        Done(b"3.0", "application/json"),
    ]
    model.calls.clear()
    assert run(model, [b"7", b"2"], recorder) == [Done(b"7.0", "application/json"), Canceled()]
    assert model.calls == [[7, 2], [7]]


class Costed(Fussy):
    """Costs its number; a 7 cannot be costed."""

    max_cost = 10

    def cost(self, item: int) -> int:
        if item == 7:
            raise ValueError("seven")
        return abs(item)


def test_items_of_like_cost_run_together_and_keep_their_places() -> None:
    model = Costed()
    outcomes = run(model, [b"1", b"5", b"7", b"2", b"4", b"40", b"3"])
    assert model.calls == [[40], [5, 4], [3, 2], [1]]
    assert codes(outcomes) == [None, None, "model_error", None, None, None, None]
    assert [outcome.body for outcome in outcomes if isinstance(outcome, Done)] == [
        b"1.0", b"5.0", b"2.0", b"4.0", b"40.0", b"3.0"
    ]  # fmt: skip


def test_what_fails_in_one_part_fails_alone() -> None:
    outcomes = run(Costed(), [b"1", b"-4", b"5", b"-1"])
    assert codes(outcomes) == [None, "model_error", None, "model_error"]


class Moving(Model[File, float]):
    """Takes its inputs away, and then has no memory for more than one."""

    name = "moving"
    version = "1"
    max_batch = 4

    def predict(self, batch: Batch[File]) -> list[float | Reject]:
        for file in batch:
            file.path.unlink(missing_ok=True)
        if len(batch) > 1:
            raise MemoryError
        return [1.0]


def test_a_batch_whose_model_took_its_files_away_is_halved_too(tmp_path: Path) -> None:
    files = [File(tmp_path / name, "image/png") for name in "ab"]
    for file in files:
        file.path.touch()
    items = [Item(file, "image/png") for file in files]
    assert codes(execute(Moving(), codec_for(File), codec_for(float), items, Recorder())) == [None, None]
