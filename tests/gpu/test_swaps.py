"""The shelf over real weights on a GPU: they go to pinned host memory and come back as a copy, tuned or not."""

import math
from typing import Any

import pytest
import torch

from tests.gpu.models import BYTES, DEVICE, Layered, outputs
from tests.shelves import NO_ARTIFACTS, alone, bring
from tundish.catalog import Served
from tundish.tune import modules
from workers.batch import Target
from workers.entry import Entry, Place
from workers.gpu import Cuda
from workers.shelf import Shelf

A, B, C = (Target(name, "1") for name in "abc")


def shelf(models: int, **options: Any) -> Shelf:
    """Of a, b and c, the first of them on the device; one less fits. `options` are a's."""
    kinds = [type(name, (Layered,), {"name": name, **(options if name == "a" else {})}) for name in "abc"[:models]]
    served = [Served(kind) for kind in kinds]
    device = Cuda(DEVICE)
    share = alone((models - 1) * BYTES, device)
    filled = Shelf(served, device, NO_ARTIFACTS, share, host_budget=lambda: math.inf)
    filled.fill()
    return filled


def given(shelf: Shelf, target: Target, *items: int) -> list[float]:
    with shelf.lend(target):
        return outputs(shelf.stock.models[target].model, *items)


def entry(shelf: Shelf, target: Target) -> Entry:
    return shelf.stock.entries[target]


def addresses(shelf: Shelf, target: Target) -> tuple[int, ...]:
    [net] = modules(shelf.stock.models[target].model)
    return tuple(each.data_ptr() for each in net.parameters())


@pytest.fixture(autouse=True)
def loads() -> list[str]:
    Layered.loads.clear()
    return Layered.loads


@pytest.fixture
def plain() -> list[float]:
    """What a gives for 1, 2 and 3 where nothing is tuned."""
    model = type("a", (Layered,), {"name": "a"})()
    model.load(DEVICE)
    found = outputs(model, 1, 2, 3)
    Layered.loads.clear()
    return found


def test_weights_go_to_pinned_memory_and_come_back_as_a_copy(loads: list[str]) -> None:
    each = shelf(2)
    before = given(each, A, 1, 2, 3)
    bring(each, B)
    away = entry(each, A)
    assert away.place is Place.HOST
    assert away.weights
    assert all(octets.is_pinned() for octets in away.weights._host.values())
    assert away.in_host == BYTES
    assert {tensor.device.type for tensor in modules(away.loaded.model)[0].parameters()} == {"cpu"}
    bring(each, A)
    assert {str(tensor.device) for tensor in modules(away.loaded.model)[0].parameters()} == {DEVICE}
    assert given(each, A, 1, 2, 3) == before
    assert away.copy_seconds is not None
    assert loads == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "close"),
    [
        ({}, 1e-6),
        ({"half": True}, 2e-2),
        ({"compile": True}, 1e-3),
        ({"cuda_graphs": True}, 1e-3),
        ({"compile": True, "cuda_graphs": True}, 1e-3),
        ({"half": True, "cuda_graphs": True}, 2e-2),
        ({"half": True, "compile": True, "cuda_graphs": True, "pad_to": (4, 8)}, 2e-2),
    ],
    ids=lambda options: "-".join(options) if isinstance(options, dict) else "",
)
def test_at_new_addresses_the_next_batch_is_right(
    loads: list[str], plain: list[float], options: dict[str, Any], close: float
) -> None:
    each = shelf(3, **options)
    seen = set()
    for target in (A, B, C, A, B, C, A):
        bring(each, target)
        if target == A:
            seen.add(addresses(each, A))
            assert given(each, A, 1, 2, 3) == pytest.approx(plain, rel=close, abs=close)
    assert len(seen) > 1
    assert sorted(loads) == ["a", "b", "c"]


def test_weights_are_half_precise_where_that_is_asked_for() -> None:
    each = shelf(2, half=True)
    bring(each, B)
    bring(each, A)
    [net] = modules(each.stock.models[A].model)
    assert {tensor.dtype for tensor in net.parameters()} == {torch.float16}


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_recorded_anew_belongs_to_the_copy(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    from torch._inductor.cudagraph_trees import CUDAGraphNode  # it takes seconds

    recorded: list[int] = []
    record = CUDAGraphNode.__init__

    def noted(self: CUDAGraphNode, *given: Any, **options: Any) -> None:
        recorded.append(1)
        record(self, *given, **options)

    monkeypatch.setattr(CUDAGraphNode, "__init__", noted)
    each = shelf(3, cuda_graphs=True, compile=compiled)
    loaded = len(recorded)
    assert loaded >= 2  # alone and in a full batch
    where = addresses(each, A)
    for target in (A, B, C, A, B, C, A):
        bring(each, target)
    assert addresses(each, A) == where or len(recorded) > loaded
    before = len(recorded)
    given(each, A, 1)
    given(each, A, *range(8))
    assert len(recorded) == before
