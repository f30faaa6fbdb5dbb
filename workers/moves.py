"""Moves: one model goes to the device, to host memory or to nowhere; what that costs is measured, and what it leaves
behind.

Whether there is room for it is decided before, by the shelf, which has the device alone meanwhile.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import clear_frames

from tundish import device
from tundish.artifact import Cache
from tundish.execute import DeviceLost
from tundish.tune import records
from workers.entry import Entry, Place
from workers.gpu import Device
from workers.load import load, pull, unload, warm_up
from workers.share import Share
from workers.weights import Weights

log = logging.getLogger(__name__)

#: What a move to host memory may leave on the device, as a part of the model's size: one that leaves more is unloaded.
RESIDUE = 0.1


class Moves:
    """Those of one device. `cache` has the models' artifacts, `share` knows whether other workers hold some of it. What
    cannot be moved is nowhere afterwards."""

    def __init__(self, device: Device, cache: Cache, share: Share) -> None:
        self._device = device
        self._cache = cache
        self._share = share

    def pull(self, entry: Entry) -> None:
        """What its load needs. It moves nothing: others may have the device."""
        pull(entry.served, self._cache)

    def load(self, entry: Entry) -> None:
        """From nowhere to the device. Raises what the model's `load` raises, and DeviceLost."""
        with _careful(entry):
            self._load(entry)

    def to_device(self, entry: Entry) -> None:
        """From host memory to the device, or to nowhere where it cannot be copied. Raises DeviceLost."""
        self._copy(entry, self._to_device, self._device.name)

    def to_host(self, entry: Entry) -> None:
        """From the device to host memory, or to nowhere where it cannot be copied or leaves too much behind. Raises
        DeviceLost."""
        self._copy(entry, self._to_host, "host memory")
        if entry.residue > RESIDUE * entry.size:
            self.unload(entry)

    def unload(self, entry: Entry) -> None:
        """To nowhere, from wherever it lies."""
        unload(entry.loaded.model)
        entry.place, entry.weights, entry.residue = Place.NOWHERE, None, 0
        self._free_cache()
        log.info("unloaded %s", entry.name)

    def _load(self, entry: Entry) -> None:
        before, taken, began = self._used(), self._device.taken(), time.monotonic()
        entry.loaded.model = load(entry.served, self._device.name, self._cache)
        warm_up(entry.loaded, self._device.name)
        entry.load_seconds = time.monotonic() - began
        entry.weights = Weights(entry.loaded.model, self._device.name)
        measured = max(0, self._used() - before)
        if self._share.others.held and (grown := self._device.taken() - taken) > 0:
            measured = min(measured, grown)  # their batches go on, and take memory meanwhile
        entry.known = entry.served.model.memory or max(measured, entry.weights.size)
        entry.arrive(time.monotonic())
        log.info(
            "loaded %s on %s in %.1f s: %.0f MiB", entry.name, self._device.name, entry.load_seconds, entry.size / 2**20
        )

    def _copy(self, entry: Entry, move: Callable[[Entry], None], where: str) -> None:
        try:
            with _careful(entry):
                move(entry)
        except DeviceLost:
            raise
        except Exception:
            log.warning("%s cannot be copied to %s", entry.name, where, exc_info=True)
            self.unload(entry)

    def _to_device(self, entry: Entry) -> None:
        began = time.monotonic()
        if entry.moves_itself:
            entry.loaded.model.to(self._device.name)
        else:
            assert entry.weights
            entry.weights.to_device(self._device.name)
        if records(entry.served.model, self._device.name):  # its weights have other addresses now
            warm_up(entry.loaded, self._device.name)
        entry.arrive(time.monotonic())
        log.info("copied %s to %s in %.3f s", entry.name, self._device.name, time.monotonic() - began)

    def _to_host(self, entry: Entry) -> None:
        before, allocated = self._used(), self._device.allocated()
        if entry.moves_itself:
            entry.loaded.model.to("cpu")
        else:
            assert entry.weights
            entry.weights.to_host(pinned=self._device.pinnable)
        entry.place = Place.HOST
        if self._device.memory() is not None:
            # What shares a block with others' tensors is not given back, but the next model finds it.
            freed = max(0, before - self._used(), allocated - self._device.allocated())
            entry.residue = entry.size - freed if entry.size - freed > self._device.grain else 0
        log.info("%s lies in host memory now; it left %.1f MiB behind", entry.name, entry.residue / 2**20)

    def _used(self) -> int:
        """Bytes of the device's own memory, less what torch only caches."""
        self._free_cache()
        told = self._device.memory()
        return told[1] if told else 0

    def _free_cache(self) -> None:
        """A CPU's memory is not counted so, and finding what is no longer used takes a tenth of a second."""
        if self._device.memory() is not None:
            device.free()


@contextmanager
def _careful(entry: Entry) -> Iterator[None]:
    """What is raised holds on to no memory of the device, and is DeviceLost where that is lost."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DeviceLost) or device.lost(error):
            raise DeviceLost(f"{entry.name}: {error}") from error
        clear_frames(error.__traceback__)
        device.free()
        raise
