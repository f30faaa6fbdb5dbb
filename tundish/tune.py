"""Tune: what a model's class asks of the runtime, applied to the torch modules among its attributes once it has loaded.

`half` makes weights and arithmetic half precise, `compile` compiles the modules, `cuda_graphs` records their kernels
and replays them, `pad_to` keeps the sizes of their batches few. torch is not imported for a model that has none.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from tundish import staging
from tundish.model import Batch, Model, padded

log = logging.getLogger(__name__)

Predict = Callable[[Batch[Any]], Any]

#: Of a module that are compiled, the most that torch allows: all modules of its own classes count as one.
VARIANTS = 256


def modules(model: Model[Any, Any]) -> list[Any]:
    """The torch modules among a model's attributes, those in its lists, tuples and dicts too; the outermost alone."""
    torch = sys.modules.get("torch")
    return [] if torch is None else [each for each in attributes(model) if isinstance(each, torch.nn.Module)]


def attributes(model: Model[Any, Any]) -> list[Any]:
    """The values of a model's attributes, and those in its lists, tuples and dicts."""
    found: list[Any] = []
    for value in vars(model).values():
        match value:
            case list() | tuple():
                found.extend(value)
            case dict():
                found.extend(value.values())
            case _:
                found.append(value)
    return found


def tune(model: Model[Any, Any], device: str) -> None:
    """Apply the options of a model that has just loaded on `device`."""
    kind, found = type(model), modules(model)
    if (kind.half or kind.compile or kind.cuda_graphs) and not found:
        log.warning("%s@%s has no torch module among its attributes to tune", kind.name, kind.version)
    graphs = records(kind, device)
    for module in found:
        if kind.half:
            module.to(_half(device))
        if kind.compile:
            _compile(module, mode="reduce-overhead" if graphs else None)
        elif graphs:
            _compile(module, options=_recorded())
    if kind.half or graphs or kind.pad_to:
        _wrap(model, partial(_autocast, device) if kind.half and found else nullcontext, graphs)


def records(kind: type[Model[Any, Any]], device: str) -> bool:
    """Whether the kernels of such a model are recorded there: the records hold the addresses of its weights."""
    return kind.cuda_graphs and device.startswith("cuda")


def padded_size(count: int, sizes: Sequence[int]) -> int:
    """The smallest of `sizes` that holds `count` items; `count` where none does."""
    return min((size for size in sizes if size >= count), default=count)


def _compile(module: Any, **options: Any) -> None:
    """Its forward, for torch's own `Module.compile` does nothing to modules of torch itself, such as a Sequential."""
    module.forward = sys.modules["torch"].compile(module.forward, recompile_limit=VARIANTS, **options)


def _recorded() -> dict[str, Any]:
    """To record a module's own kernels, none of them changed. torch's backend `cudagraphs` does too, but holds a second
    copy of the weights for it, and fills that before each replay."""
    options: dict[str, Any] = sys.modules["torch"]._inductor.list_mode_options("lite")
    return {**options, "triton.cudagraphs": True}


def _wrap(model: Model[Any, Any], around: Callable[[], AbstractContextManager[Any]], graphs: bool) -> None:
    """Stand before the model's own predict and collate, on this instance alone."""
    own: Predict = model.predict
    collate: Callable[[Sequence[Any]], Any] = model.collate

    def collate_padded(items: Sequence[Any]) -> Any:
        return collate(padded(items, padded_size(len(items), type(model).pad_to)))

    def predict(batch: Batch[Any]) -> Any:
        count, size = len(batch), padded_size(len(batch), type(model).pad_to)
        if graphs:  # what the last call recorded is no longer needed
            sys.modules["torch"].compiler.cudagraph_mark_step_begin()
        with around():
            results = own(batch.padded(size) if size > count else batch)
        if size > count and isinstance(results, (list, tuple)) and len(results) == size:
            results = results[:count]
        return staging.apart(results) if graphs else results

    model.predict = predict  # type: ignore[method-assign]  # of this instance
    model.collate = collate_padded  # type: ignore[method-assign]


def _autocast(device: str) -> AbstractContextManager[Any]:
    """Inputs of single precision meet weights of half precision."""
    cast: AbstractContextManager[Any] = sys.modules["torch"].autocast(device.partition(":")[0], dtype=_half(device))
    return cast


def _half(device: str) -> Any:
    """float16 where a GPU computes in it; CPUs know bfloat16."""
    torch = sys.modules["torch"]
    return torch.float16 if device.startswith("cuda") else torch.bfloat16
