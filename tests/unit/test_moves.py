"""Moves of one model on a CPU: where it lies after each, and after one that fails."""

import weakref
from typing import Any, ClassVar

import pytest
import torch

from tests.shelves import NO_ARTIFACTS, alone
from tundish import Batch, Model, Reject
from tundish.catalog import Served
from tundish.execute import DeviceLost
from workers.entry import Entry, Place
from workers.gpu import Cpu
from workers.moves import Moves


class Layered(Model[int, float]):
    """One layer; what it loads, and where it is asked to go."""

    name = "a"
    version = "1"
    trouble: ClassVar[dict[str, Exception]]
    layers: ClassVar[list[Any]]

    def load(self, device: str) -> None:
        layer = torch.nn.Linear(100, 10)
        self.layers.append(weakref.ref(layer))
        if "load" in self.trouble:
            raise self.trouble["load"]
        self.layer = layer

    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        return [float(item) for item in batch]


class Moving(Layered):
    """Moves its weights itself."""

    def to(self, device: str) -> None:
        if device in self.trouble:
            raise self.trouble[device]


class Apart(Cpu):
    """Has another name than host memory."""

    name = "meta"


class Blocks(Cpu):
    """A device that has 1,000 bytes of a model, and frees none while others have a part of the same block."""

    grain = 50

    def __init__(self) -> None:
        self.in_tensors = 1000

    def memory(self) -> tuple[int, int]:
        return 10_000, 5_000

    def allocated(self) -> int:
        return self.in_tensors


@pytest.fixture(autouse=True)
def trouble() -> dict[str, Exception]:
    Layered.layers, Layered.trouble = [], {}
    return Layered.trouble


@pytest.fixture
def moves() -> Moves:
    return Moves(Apart(), NO_ARTIFACTS, alone())


def entry(model: type[Model[Any, Any]]) -> Entry:
    return Entry.of(Served(model))


def test_a_load_is_measured_and_an_unload_leaves_nothing() -> None:
    moves, each = Moves(Cpu(), NO_ARTIFACTS, alone()), entry(Layered)
    moves.load(each)
    assert (each.place, each.known, each.held) == (Place.DEVICE, 4 * 1010, 4 * 1010)
    assert each.load_seconds > 0
    moves.unload(each)
    assert (each.place, each.known, each.held, each.weights) == (Place.NOWHERE, 4 * 1010, 0, None)
    assert Layered.layers[0]() is None


def test_a_load_that_raises_tells_where_and_holds_on_to_nothing(moves: Moves, trouble: dict[str, Exception]) -> None:
    trouble["load"], each = OSError("the disk"), entry(Layered)
    with pytest.raises(OSError, match="the disk") as failed:
        moves.load(each)
    assert failed.traceback[-1].name == "load"
    assert Layered.layers[0]() is None
    assert each.place is Place.NOWHERE


def test_a_load_that_would_end_the_process_fails_as_any_other(moves: Moves, trouble: dict[str, Any]) -> None:
    trouble["load"], each = SystemExit("install it first"), entry(Layered)
    with pytest.raises(RuntimeError, match="load raised SystemExit: install it first"):
        moves.load(each)
    assert each.place is Place.NOWHERE


def test_what_cannot_be_copied_to_host_memory_is_nowhere(moves: Moves, trouble: dict[str, Exception]) -> None:
    trouble["cpu"], each = MemoryError("full"), entry(Moving)
    moves.load(each)
    moves.to_host(each)
    assert each.place is Place.NOWHERE


@pytest.mark.parametrize(
    ("left", "place", "residue"),
    [(0, Place.HOST, 0), (50, Place.HOST, 0), (60, Place.HOST, 60), (200, Place.NOWHERE, 0)],
)
def test_what_no_tensor_takes_is_not_left_behind(left: int, place: Place, residue: int) -> None:
    class Leaving(Moving):
        memory = 1000

        def to(self, device: str) -> None:
            blocks.in_tensors = left

    blocks, each = Blocks(), entry(Leaving)
    moves = Moves(blocks, NO_ARTIFACTS, alone())
    moves.load(each)
    moves.to_host(each)
    assert (each.place, each.residue) == (place, residue)


def test_what_cannot_be_copied_to_the_device_is_nowhere(moves: Moves, trouble: dict[str, Exception]) -> None:
    trouble["meta"], each = MemoryError("full"), entry(Moving)
    moves.load(each)
    moves.to_host(each)
    assert each.in_host == each.size
    moves.to_device(each)
    assert each.place is Place.NOWHERE


@pytest.mark.parametrize("step", ["load", "cpu", "meta"])
def test_whatever_finds_the_device_lost_says_so(moves: Moves, trouble: dict[str, Exception], step: str) -> None:
    trouble[step], each = RuntimeError("CUDA error: misaligned address"), entry(Moving)

    def all_moves() -> None:
        moves.load(each)
        moves.to_host(each)
        moves.to_device(each)

    with pytest.raises(DeviceLost, match="a@1: CUDA error"):
        all_moves()
