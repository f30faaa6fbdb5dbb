"""Load: a model class becomes an instance on the device, tuned as its class asks and warmed up with its example."""

import gc
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from tundish import execute
from tundish.artifact import Cache, CacheError, Refused
from tundish.blobs import BlobError
from tundish.catalog import Served
from tundish.codec import Codec
from tundish.lineup import Known
from tundish.model import Model
from tundish.outcome import Failed, Item
from tundish.runtime import Ceilings, Runtime
from tundish.tune import records, tune
from workers.folders import Folders

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Loaded:
    """What decodes a model's inputs and encodes its outputs, what the catalog knows of it, `folders` where its payloads
    are files, and the model itself while it is on the shelf."""

    reads: Codec
    writes: Codec
    known: Known
    folders: Folders | None = None
    ceilings: Ceilings = field(default_factory=Ceilings)
    making: AbstractContextManager[object] = field(default_factory=Lock)
    model: Model[Any, Any] = field(init=False)


def load(served: Served, device: str, cache: Cache) -> Model[Any, Any]:
    """A model on a device, by its name in torch. Raises what its `load` raises, as an Exception, for it is to harm no
    other model; and where its artifact cannot be pulled Refused, CacheError or BlobError."""
    model = served.model()
    cache.equip(model)
    try:
        model.load(device)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RuntimeError(f"load raised {type(error).__name__}: {error}") from error
    tune(model, device)
    return model


def pull(served: Served, cache: Cache) -> None:
    """Pull the artifact of a model that is loaded later: then nobody waits for it. What goes wrong is told then."""
    if served.model.artifact is not None:
        try:
            cache.pull(served.model.artifact)
        except (Refused, CacheError, BlobError) as error:
            log.warning("%s@%s cannot be pulled yet: %s", served.model.name, served.model.version, error)


def warm_up(loaded: Loaded, device: str) -> None:
    """Predict the example in each size that is padded to, or alone and in a full batch: kernels are chosen, compiled
    and recorded before a caller waits for them, and the memory that a batch needs is claimed. Raises DeviceLost; what
    else goes wrong is left for the jobs to tell."""
    model, example = loaded.model, type(loaded.model).example
    if example is None:
        return
    try:
        item = Item(*execute.encoded(loaded.reads, example))
        folder = loaded.folders.new() if loaded.folders else None
        runtime = Runtime(device, loaded.ceilings, loaded.making, folder=folder.path if folder else None)
        for size in _sizes(type(model), device):
            ran = execute.execute(model, loaded.reads, loaded.writes, [item] * size, _Silent(), runtime)
            if failures := [each for each in ran if isinstance(each, Failed)]:
                log.warning("%s@%s fails its own example: %s", model.name, model.version, failures[0].message)
                return
    except execute.DeviceLost:
        raise
    except Exception:
        log.warning("%s@%s cannot be warmed up with its example", model.name, model.version, exc_info=True)


def unload(model: Model[Any, Any]) -> None:
    """What goes wrong is logged: the instance is dropped."""
    try:
        model.unload()
    except Exception:
        log.warning("%s@%s raised while it was unloaded", model.name, model.version, exc_info=True)
    with suppress(TypeError):  # a model without attributes has no dict
        vars(model).clear()
    gc.unfreeze()  # what it leaves in cycles can go


def _sizes(model: type[Model[Any, Any]], device: str) -> Iterable[int]:
    """Each once; twice where kernels are recorded, for torch records those of the second call."""
    sizes = {size for size in model.pad_to if size <= model.max_batch} or {1, model.max_batch}
    return [size for size in sorted(sizes) for _ in range(1 + records(model, device))]


class _Silent:
    """Nobody hears of a warm-up."""

    def progress(self, index: int, fraction: float) -> None:
        """Nobody hears."""

    def emit(self, index: int, piece: Any) -> None:
        """Nobody hears."""

    def log(self, index: int, text: str) -> None:
        """Nobody hears."""

    def canceled(self, index: int) -> bool:
        return False

    def again(self, indexes: Sequence[int]) -> None:
        """Nobody hears."""
