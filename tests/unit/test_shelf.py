"""The shelf over real weights, on a CPU whose memory has a limit."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import pytest
import torch

from tests.shelves import NO_ARTIFACTS, alone, bring
from tundish import Batch, Model, Reject
from tundish.catalog import Served
from tundish.execute import DeviceLost
from workers.batch import Target, Waiting
from workers.gpu import Cpu
from workers.shelf import TRIES, LoadFailed, Shelf

BYTES = 4 * (1000 * 10 + 10)  # of each model's weights


class Layered(Model[int, float]):
    """One layer; writes down when it is loaded."""

    version = "1"
    events: ClassVar[list[str]] = []
    trouble: ClassVar[dict[str, Exception]] = {}

    def load(self, device: str) -> None:
        self.events.append(f"load {self.name}")
        if self.name in self.trouble:
            raise self.trouble[self.name]
        self.layer = torch.nn.Linear(1000, 10)

    @torch.inference_mode()
    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        return [float(self.layer(torch.full((1000,), float(item))).sum()) for item in batch]

    def unload(self) -> None:
        self.events.append(f"unload {self.name}")


A, B, C = (Target(name, "1") for name in "abc")


def layered(name: str, **options: Any) -> type[Layered]:
    return type(name, (Layered,), {"name": name, **options})


@pytest.fixture(autouse=True)
def events() -> Iterator[list[str]]:
    Layered.events.clear()
    yield Layered.events
    Layered.trouble.clear()


def shelf(
    *models: type[Layered],
    budget: float = 2 * BYTES,
    host: float = math.inf,
    follow: Callable[[Iterable[Target]], None] = lambda targets: None,
) -> Shelf:
    served = [Served(model) for model in models]
    return Shelf(served, Cpu(), NO_ARTIFACTS, alone(budget), host_budget=lambda: host, follow=follow)


def outputs(shelf: Shelf, target: Target) -> list[float]:
    with shelf.lend(target):
        predict: Any = shelf.stock.models[target].model.predict
        return list(predict([1, 2]))


def test_where_all_fit_nothing_has_to_be_decided(events: list[str]) -> None:
    each = shelf(layered("a"), layered("b"))
    assert not each.complete
    each.fill()
    assert each.complete
    assert each.stock.memory() == (2 * BYTES, 2 * BYTES)
    assert events == ["load a", "load b"]


def test_a_swap_is_a_copy_and_the_weights_are_the_same(events: list[str]) -> None:
    each = shelf(layered("a"), layered("b"), layered("c"))
    each.fill()
    assert events == ["load a", "load b", "load c"]
    expected = outputs(each, A)
    for target in (C, B, A, C, A):
        bring(each, target)
        assert each.stock.memory() == (2 * BYTES, 2 * BYTES)
    assert outputs(each, A) == expected
    assert events == ["load a", "load b", "load c"]


def test_weights_that_changed_on_the_device_are_not_forgotten() -> None:
    each = shelf(layered("a"), layered("b"), budget=BYTES)
    each.fill()
    bring(each, B)
    bring(each, A)
    with torch.no_grad():
        each.stock.models[A].model.layer.weight.mul_(2)  # type: ignore[attr-defined]  # of the class above
    expected = outputs(each, A)
    bring(each, B)
    bring(each, A)
    assert outputs(each, A) == expected


def test_what_comes_keeps_its_copy_where_host_memory_holds_one(events: list[str]) -> None:
    each = shelf(layered("a"), layered("b"), budget=BYTES, host=BYTES)
    each.fill()
    for entry in each.stock.entries.values():
        entry.load_seconds = 1.0
    bring(each, B)
    assert events == ["load a", "load b", "unload a"]


def test_without_room_in_host_memory_a_model_is_loaded_again(events: list[str]) -> None:
    each = shelf(layered("a"), layered("b"), budget=BYTES, host=BYTES - 1)
    each.fill()
    assert events == ["load a", "load b", "unload b"]
    bring(each, B)
    assert events[3:] == ["unload a", "load b"]


def test_the_pinned_stay(events: list[str]) -> None:
    each = shelf(layered("a"), layered("b", pinned=True), layered("c"))
    each.fill()
    assert events[0] == "load b"
    for target in (C, A, C):
        bring(each, target)
        assert each.choose({B: Waiting(1.0, 0.0)}, time.monotonic(), idle=False).targets >= {B}


def test_what_does_not_fit_alone_fails_with_what_to_set(events: list[str]) -> None:
    each = shelf(layered("a"), layered("c", memory=3 * BYTES))
    each.fill()
    assert events == ["load a"]
    with pytest.raises(LoadFailed, match="TUNDISH_DEVICE_MEMORY") as failed:
        bring(each, C)
    assert failed.value.final
    bring(each, A)


def test_beside_pinned_models_there_is_less_room() -> None:
    each = shelf(layered("a", pinned=True), layered("b"), budget=2 * BYTES - 1)
    each.fill()
    with pytest.raises(LoadFailed, match=f"pinned models take {BYTES:,}"):
        bring(each, B)


def test_a_load_that_raises_rests_and_its_jobs_fail_in_the_end() -> None:
    followed: list[set[Target]] = []
    Layered.trouble["b"] = OSError("the disk")
    each = shelf(layered("a"), layered("b"), follow=lambda targets: followed.append(set(targets)))
    each.fill()
    for number in range(2, TRIES + 1):
        assert each.stock.places()["b@1"]["error"] == "b@1 cannot be loaded: OSError: the disk"
        assert each.stock.places()["a@1"]["error"] is None
        rests = each.stock.entries[B].rests_until - 0.5
        assert each.choose({B: Waiting(1.0, 0.0)}, rests, idle=True).targets == {A}
        assert followed[-1] == {A}
        with pytest.raises(LoadFailed, match="OSError: the disk") as failed:
            bring(each, B)
        assert failed.value.final == (number == TRIES)
        bring(each, A)
    Layered.trouble.clear()
    bring(each, B)
    assert each.complete
    assert each.stock.places()["b@1"]["error"] is None


def test_failures_that_are_not_in_a_row_fail_no_job() -> None:
    each = shelf(layered("a"), layered("b"), budget=BYTES, host=0)
    each.fill()
    for _ in range(TRIES):
        Layered.trouble["b"] = OSError("the weights are not there")
        with pytest.raises(LoadFailed) as failed:
            bring(each, B)
        assert not failed.value.final
        Layered.trouble.clear()
        bring(each, B)
        bring(each, A)


def test_what_nobody_knew_the_size_of_makes_room_once_it_is_there() -> None:
    each = shelf(layered("a"), layered("b"), budget=BYTES)
    Layered.trouble["b"] = OSError("the weights are not there")
    each.fill()
    Layered.trouble.clear()
    bring(each, B)
    assert each.stock.holds(B)
    assert each.stock.held() == BYTES


def test_a_load_that_runs_out_of_memory_is_tried_again_alone(events: list[str]) -> None:
    each = shelf(layered("a"), layered("b", memory=BYTES // 2), budget=BYTES)

    class Full(Layered):
        name = "b"

        def load(self, device: str) -> None:
            super().load(device)
            if "unload a" not in self.events:
                raise MemoryError("full")

    each = shelf(layered("a"), Full, host=0)
    each.fill()
    assert events == ["load a", "load b", "unload a", "load b"]


def test_a_poisoned_device_ends_it() -> None:
    Layered.trouble["b"] = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(DeviceLost):
        shelf(layered("a"), layered("b")).fill()


def test_nothing_is_drafted_while_another_comes_and_none_comes_to_a_busy_device() -> None:
    each = shelf(layered("a"), layered("b"), budget=BYTES)
    each.fill()
    waiting = {B: Waiting(1.0, 0.0)}
    assert each.choose(waiting, 1e12, idle=False).targets == set()
    assert each.choose(waiting, 1e12, idle=True).targets == {B}
    each.drafted(B)
    assert each.choose({A: Waiting(1.0, 0.0)}, 1e12, idle=True).targets == set()
    each.dropped(B)
    assert each.choose({A: Waiting(1.0, 0.0)}, 1e12, idle=True).targets == {A}


def test_it_tells_where_each_model_lies() -> None:
    def places() -> dict[str, tuple[str, int | None]]:
        return {name: (lies["place"], lies["bytes"]) for name, lies in each.stock.places().items()}

    each = shelf(layered("a"), layered("b"), layered("c", memory=9 * BYTES), budget=BYTES, host=BYTES)
    assert places() == {"a@1": ("nowhere", None), "b@1": ("nowhere", None), "c@1": ("nowhere", 9 * BYTES)}
    each.fill()
    assert places() == {"a@1": ("device", BYTES), "b@1": ("host", BYTES), "c@1": ("nowhere", 9 * BYTES)}
    each.stock.entries[A].load_seconds = 9.0  # host memory is for what takes longer to load
    bring(each, B)
    assert (places()["a@1"], places()["b@1"]) == (("host", BYTES), ("device", BYTES))


def test_a_model_that_moves_its_own_weights_does() -> None:
    class Moving(Layered):
        name = "b"

        def load(self, device: str) -> None:
            super().load(device)
            self.weights = bytes(10)

        def to(self, device: str) -> None:
            self.events.append(f"b to {device}")

    each = shelf(layered("a"), Moving, budget=BYTES)
    each.fill()
    bring(each, B)
    assert Layered.events == ["load a", "load b", "b to cpu", "b to cpu"]


def test_tied_weights_stay_tied() -> None:
    class Tied(Layered):
        name = "b"

        def load(self, device: str) -> None:
            super().load(device)
            self.other = torch.nn.Linear(1000, 10, bias=False)
            self.other.weight = self.layer.weight
            self.table = torch.arange(10)

    each = shelf(layered("a"), Tied, budget=BYTES + 80)
    each.fill()
    assert each.stock.memory() == (BYTES + 80, BYTES)
    bring(each, B)
    assert each.stock.memory() == (BYTES + 80, BYTES + 80)
    model: Any = each.stock.models[B].model
    assert model.other.weight is model.layer.weight
    assert model.table.tolist() == list(range(10))
    assert model.layer(torch.zeros(1000)).shape == (10,)


def test_weights_made_for_inference_are_loaded_again(events: list[str]) -> None:
    class Inferring(Layered):
        name = "b"

        @torch.inference_mode()
        def load(self, device: str) -> None:
            super().load(device)

    each = shelf(layered("a"), Inferring, budget=BYTES)
    each.fill()
    bring(each, B)
    assert events == ["load a", "load b", "unload b", "load b"]
    assert len(outputs(each, B)) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_warmed_up_alone_and_in_a_full_batch_and_one_that_fails_there_harms_nobody(fails: bool) -> None:
    sizes: list[int] = []

    class Warm(Layered):
        name = "a"
        max_batch = 8
        example = 3

        def predict(self, batch: Batch[int]) -> list[float | Reject]:
            sizes.append(len(batch))
            if fails:
                raise ValueError("cold")
            return super().predict(batch)

    each = shelf(Warm)
    each.fill()
    assert each.complete
    assert fails or sizes == [1, 8]


def test_an_exchange_loads_all_first_and_then_unloads_what_was_here(events: list[str]) -> None:
    each = shelf(layered("a"), layered("b"))
    each.fill()
    before = each.stock.models[B]
    entries = each.load([Served(layered("b")), Served(layered("c"))])
    assert events == ["load a", "load b", "load b", "load c"]
    assert set(each.stock.models) == {A, B}
    each.exchange(entries)
    assert events[4:] == ["unload a", "unload b"]
    assert set(each.stock.models) == {B, C}
    assert each.stock.models[B] is not before
    assert each.complete
    assert each.stock.memory() == (2 * BYTES, 2 * BYTES)


def test_one_that_is_exchanged_while_somebody_asks_for_it_breaks_nothing() -> None:
    class Exchanged(dict[Target, Any]):
        def __contains__(self, target: object) -> bool:
            there = super().__contains__(target)
            each.stock.exchange({})
            return there

    each = shelf(layered("a"))
    each.stock.exchange(Exchanged(each.stock.entries))
    assert not each.stock.holds(A)  # it was not loaded


def test_an_exchange_that_raises_changes_nothing(events: list[str]) -> None:
    each = shelf(layered("a"))
    each.fill()
    expected = outputs(each, A)
    Layered.trouble["c"] = OSError("the disk")
    with pytest.raises(OSError, match="the disk"):
        each.load([Served(layered("a")), Served(layered("c"))])
    assert events == ["load a", "load a", "load c", "unload a"]
    assert each.complete
    assert outputs(each, A) == expected
    Layered.trouble["c"] = RuntimeError("CUDA error: device-side assert triggered")
    with pytest.raises(DeviceLost):
        each.load([Served(layered("c"))])


def test_what_is_here_makes_room_for_an_exchange_and_comes_back_where_it_fails(events: list[str]) -> None:
    each = shelf(layered("a"), budget=BYTES)
    each.fill()
    expected = outputs(each, A)

    class Full(Layered):
        name = "b"

        def load(self, device: str) -> None:
            super().load(device)
            raise MemoryError("full")

    with pytest.raises(MemoryError):
        each.load([Served(Full)])
    assert not each.complete
    assert each.stock.memory() == (BYTES, 0)
    assert outputs(each, A) == expected
    assert events == ["load a", "load b", "load b"]


def test_a_device_that_is_lost_while_an_exchange_is_tried_again_ends_it() -> None:
    each = shelf(layered("a"), budget=BYTES)
    each.fill()

    class Breaking(Layered):
        name = "b"

        def load(self, device: str) -> None:
            super().load(device)
            if self.events.count("load b") == 1:
                raise MemoryError("full")
            raise RuntimeError("CUDA error: unspecified launch failure")

    with pytest.raises(DeviceLost, match="b@1"):
        each.load([Served(Breaking)])
