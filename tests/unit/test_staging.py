"""What goes to a device ahead, and what comes back: on a CPU, and on a GPU that is played; tests/gpu has a real one."""

import sys
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from tundish import staging


class Sentence(NamedTuple):
    ids: Any
    mask: Any


def test_tensors_are_placed_wherever_they_stand() -> None:
    ids = torch.arange(3)
    placed = staging.placed({"both": [ids, (ids, "text")], "named": Sentence(ids, None)}, "meta")
    match placed:
        case {"both": [first, (second, "text")], "named": Sentence(third, None)}:
            assert first.is_meta
            assert second.is_meta
            assert third.is_meta
        case _:
            pytest.fail(f"it has another shape: {placed}")
    assert not ids.is_meta


class Tokens(UserDict[str, Any]):
    """As transformers gives them."""


class Named(dict[str, Any]):
    """One that gives its values as attributes too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def test_dictionaries_of_other_kinds_stay_what_they_are() -> None:
    tokens, named = Tokens(ids=torch.arange(3)), Named(ids=torch.arange(3))
    for placed in staging.placed([tokens, named], "meta"):
        assert placed["ids"].is_meta
    placed_tokens, placed_named = staging.placed([tokens, named], "meta")
    assert isinstance(placed_tokens, Tokens)
    assert placed_named.ids.is_meta
    assert not tokens["ids"].is_meta
    assert not named.ids.is_meta


def test_a_dictionary_that_takes_no_change_is_placed_too() -> None:
    placed = staging.placed(MappingProxyType({"ids": torch.arange(3)}), "meta")
    assert placed["ids"].is_meta


def test_results_on_a_cpu_are_as_they_were() -> None:
    results = [torch.ones(2), {"a": torch.ones(1)}, "text"]
    staging.settle("cpu")
    assert staging.fetched(results) is results
    with staging.beside("cpu"):
        assert staging.placed(results[0], "cpu") is results[0]


class Place(NamedTuple):
    type: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.type}:{self.number}"


class Played:
    """A tensor of a device that is played."""

    layout, dtype = "strided", "half"

    def __init__(self, gpu: "Gpu", device: str, shape: tuple[int, ...] = (2,), pinned: bool = False) -> None:
        kind, _, index = device.partition(":")
        self.gpu, self.device, self.shape, self.pinned = gpu, Place(kind, int(index or 0)), shape, pinned
        self.is_cuda, self.is_sparse = kind == "cuda", False

    def pin_memory(self) -> "Played":
        self.gpu.did.append(f"pin for {self.gpu.current}")
        return Played(self.gpu, "cpu", self.shape, pinned=True)

    def detach(self) -> "Played":
        return self

    def to(self, device: str, non_blocking: bool = False) -> "Played":
        kind = device.partition(":")[0]
        if kind == self.device.type:
            return self
        assert self.pinned or kind == "cpu"
        assert non_blocking
        # A stream is of one device: on any other the copy would go by what computes there, and not be waited for.
        assert self.gpu.streams in (None, str(self.device if self.is_cuda else device))
        self.gpu.did.append(f"copy to {kind} by {self.gpu.stream}")
        return Played(self.gpu, kind, self.shape)

    def clone(self) -> "Played":
        self.gpu.did.append("clone")
        return Played(self.gpu, self.device.type, self.shape)

    def unbind(self) -> "list[Played]":
        return [Played(self.gpu, self.device.type, self.shape[1:]) for _ in range(self.shape[0])]


class Gpu:
    """What torch does with one."""

    Tensor, strided = Played, "strided"

    def __init__(self) -> None:
        self.did: list[str] = []
        self.stream = "its own"
        self.streams: str | None = None  # of which device
        self.current = "cuda:0"  # that the thread goes by
        self.cuda = SimpleNamespace(
            is_initialized=lambda: True,
            Stream=lambda device: self._stream("another", device),
            current_stream=lambda device: self._stream(self.stream),
            stream=self._using,
            device=self._going_by,
        )

    def _stream(self, name: str, device: str | None = None) -> Any:
        return SimpleNamespace(name=name, device=device, synchronize=lambda: self.did.append(f"wait for {name}"))

    @contextmanager
    def _using(self, stream: Any) -> Iterator[None]:
        before = self.stream, self.streams
        self.stream, self.streams = stream.name, stream.device
        yield
        self.stream, self.streams = before

    @contextmanager
    def _going_by(self, device: str) -> Iterator[None]:
        self.current, before = device, self.current
        yield
        self.current = before

    def stack(self, tensors: list[Played]) -> Played:
        self.did.append("stack")
        return Played(self, "cuda", (len(tensors), *tensors[0].shape))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    gpu = Gpu()
    monkeypatch.setitem(sys.modules, "torch", gpu)
    staging._stream.cache_clear()
    yield gpu
    staging._stream.cache_clear()


def test_what_goes_to_a_gpu_ahead_is_pinned_and_goes_beside_what_it_computes(gpu: Gpu) -> None:
    with staging.beside("cuda:1"):
        placed = staging.placed([Played(gpu, "cpu"), Played(gpu, "cuda:1")], "cuda:1")
    assert [each.is_cuda for each in placed] == [True, True]
    assert gpu.did == ["pin for cuda:1", "copy to cuda by another", "wait for another"]


def test_results_are_settled_by_the_stream_that_computes_them_and_fetched_by_another(gpu: Gpu) -> None:
    results = [Played(gpu, "cuda") for _ in range(3)]
    staging.settle("cuda:0")
    fetched = staging.fetched(results)
    assert [(each.is_cuda, each.shape) for each in fetched] == [(False, (2,))] * 3
    assert gpu.did[0] == "wait for its own"
    assert gpu.did[1:] == ["stack", "copy to cpu by another", "wait for another"]  # all in one copy


def test_results_that_are_not_alike_are_fetched_each(gpu: Gpu) -> None:
    refused = object()
    fetched = staging.fetched([Played(gpu, "cuda"), Played(gpu, "cuda", (5,)), refused, {"a": Played(gpu, "cuda")}])
    assert [each.shape for each in fetched[:2]] == [(2,), (5,)]
    assert fetched[2] is refused
    assert not fetched[3]["a"].is_cuda
    assert gpu.did.count("copy to cpu by another") == 3


def test_results_of_two_gpus_are_fetched_by_a_stream_of_each(gpu: Gpu) -> None:
    one, other = Played(gpu, "cuda:0"), Played(gpu, "cuda:1")
    fetched = staging.fetched([one, {"a": other, "b": one}])
    assert not any(each.is_cuda for each in (fetched[0], *fetched[1].values()))
    assert gpu.did.count("wait for another") == 2


def test_results_lie_apart_from_what_the_next_call_writes_to(gpu: Gpu) -> None:
    alike = [Played(gpu, "cuda") for _ in range(3)]
    mixed: list[Any] = [Played(gpu, "cuda"), {"a": Played(gpu, "cuda", (5,)), "b": Played(gpu, "cpu")}, "text"]
    assert [each.shape for each in staging.apart(alike)] == [(2,)] * 3
    assert gpu.did == ["stack"]
    first, named, text = staging.apart(mixed)
    assert [first.shape, named["a"].shape, text] == [(2,), (5,), "text"]
    assert named["b"] is mixed[1]["b"]
    assert gpu.did == ["stack", "clone", "clone"]


@pytest.mark.parametrize("results", [None, 3, [], ["text"], [torch.ones(2)]])
def test_what_lies_on_no_gpu_is_given_as_it_is(results: Any) -> None:
    assert staging.apart(results) is results
