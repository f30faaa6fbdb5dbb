"""Staging: tensors to a GPU ahead of the batch that needs them, and results back from one while the next computes.

A GPU copies beside what it computes where the copy has a stream of its own, and the host's side of it is pinned. torch
is asked only where it is there.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import cache, partial
from typing import Any


def placed(value: Any, device: str) -> Any:
    """The value, with the tensors among its tuples, lists and dictionaries on `device`, as torch names it."""
    torch = sys.modules.get("torch")
    if torch is None or value is None:
        return value
    gpu = device.startswith("cuda")

    def place(tensor: Any) -> Any:
        from_host = gpu and tensor.device.type == "cpu" and not tensor.is_sparse
        return (tensor.pin_memory() if from_host else tensor).to(device, non_blocking=from_host)

    # Memory is pinned for the device that a thread goes by, which is the first one else.
    with torch.cuda.device(device) if gpu else nullcontext():
        return _each(value, place)


@contextmanager
def beside(device: str) -> Iterator[None]:
    """What the block copies to `device` goes beside what it computes, and is there when the block ends."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        yield
        return
    stream = _stream(device, "there")
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def settle(device: str) -> None:
    """Wait until a GPU has computed what was asked of it: until then it may still raise, its time runs, and it reads
    what was collated."""
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda") and torch.cuda.is_initialized():
        torch.cuda.current_stream(device).synchronize()


def apart(results: Any) -> Any:
    """Results of which no tensor of a GPU lies where the next call writes to: copies of those."""
    if not _gpus(results):
        return results
    stacked = _stacked(results)
    return [_each(each, _copied) for each in results] if stacked is None else list(stacked.unbind())


def fetched(results: Sequence[Any]) -> Sequence[Any]:
    """Settled results, tensors and dictionaries of them in host memory: they wait for no batch that runs by now."""
    for device in _gpus(results):
        stream = _stream(str(device), "back")
        with sys.modules["torch"].cuda.stream(stream):
            results = _alike(results) or [_each(each, partial(_to_host, device)) for each in results]
        stream.synchronize()
    return results


def _alike(results: Sequence[Any]) -> Sequence[Any] | None:
    """Tensors of one kind in one copy; None where they are not."""
    stacked = _stacked(results)
    return None if stacked is None else list(_to_host(stacked.device, stacked).unbind())


def _stacked(results: Sequence[Any]) -> Any | None:
    """Tensors of one kind as one; None where they are not."""
    torch = sys.modules["torch"]
    if not all(isinstance(each, torch.Tensor) and each.layout == torch.strided for each in results):
        return None
    if len({(each.device, each.dtype, each.shape) for each in results}) > 1:
        return None
    return torch.stack([each.detach() for each in results])


def _copied(tensor: Any) -> Any:
    return tensor.detach().clone() if tensor.is_cuda else tensor


def _to_host(device: Any, tensor: Any) -> Any:
    """Into pinned memory, what lies on the device: torch takes such for what shall not block."""
    return tensor.detach().to("cpu", non_blocking=True) if tensor.device == device else tensor


def _gpus(results: Any) -> set[Any]:
    """Where the tensors of results lie."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized() or not isinstance(results, list | tuple):
        return set()
    tensors = [each for result in results for each in (result.values() if isinstance(result, dict) else (result,))]
    return {each.device for each in tensors if isinstance(each, torch.Tensor) and each.is_cuda}


def _each(value: Any, verb: Callable[[Any], Any]) -> Any:
    """The value, with what `verb` makes of the tensors among its tuples, lists and dictionaries."""
    match value:
        case MutableMapping():  # of any kind: tokenizers give their own
            changed = copy(value)
            for key, each in value.items():
                changed[key] = _each(each, verb)
            return changed
        case Mapping():
            return {key: _each(each, verb) for key, each in value.items()}
        case list():
            return [_each(each, verb) for each in value]
        case tuple() if hasattr(value, "_make"):
            return value._make(_each(each, verb) for each in value)
        case tuple():
            return tuple(_each(each, verb) for each in value)
    return verb(value) if isinstance(value, sys.modules["torch"].Tensor) else value


@cache
def _stream(device: str, way: str) -> Any:
    """One for each way, so that torch uses the memory of the last copy again."""
    return sys.modules["torch"].cuda.Stream(device)
