"""Weights: the tensors that hang on a model, how many bytes they take, and their way to host memory and back.

Found are the parameters and buffers of torch modules among a model's attributes, in lists and dicts too, and plain
tensors. They change places by their data alone, so that whatever refers to them, a compiled module too, still does.
"""

import sys
from collections.abc import Iterable
from itertools import chain
from typing import Any

from tundish.model import Model
from tundish.tune import attributes, modules


class Weights:
    """The tensors of one loaded model by the memory that they share: tied weights stay tied. Not `movable` are those
    that do not lie in one piece of memory (sparse or quantized), and those made in inference mode."""

    def __init__(self, model: Model[Any, Any], device: str) -> None:
        self._shared: dict[int, list[Any]] = {}
        self._apart = 0  # bytes of tensors that do not lie in one piece
        tensors = _tensors(model, device)
        for tensor in tensors:
            try:
                self._shared.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
            except (RuntimeError, NotImplementedError):
                self._apart += tensor.numel() * tensor.element_size()
        self._shared.pop(0, None)  # nothing in it
        self.movable = bool(self._shared) and not self._apart and not any(each.is_inference() for each in tensors)
        self._host: dict[int, Any] = {}
        self._seen: list[int] = []

    @property
    def size(self) -> int:
        """Bytes on the device."""
        in_one_piece: int = sum(shared[0].untyped_storage().nbytes() for shared in self._shared.values())
        return in_one_piece + self._apart

    def to_host(self, pinned: bool) -> None:
        """Into host memory, which is kept for the next time: weights that did not change since are not copied again."""
        torch = sys.modules["torch"]
        changed = not self._host or self._seen != self._versions()
        for key, shared in self._shared.items():
            storage = shared[0].untyped_storage()
            if key not in self._host:
                self._host[key] = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=pinned)
            if changed:
                self._host[key].copy_(_octets(storage, shared[0].device), non_blocking=True)
        _wait(shared[0].device for shared in self._shared.values())
        for key, shared in self._shared.items():
            _point(shared, self._host[key])

    def to_device(self, device: str) -> None:
        """Onto the device. Raises what torch raises where its memory does not hold them; they lie in host memory
        then."""
        torch = sys.modules["torch"]
        there = {key: torch.empty_like(host, device=device) for key, host in self._host.items()}
        for key, octets in there.items():
            octets.copy_(self._host[key], non_blocking=True)
        _wait(octets.device for octets in there.values())
        for key, shared in self._shared.items():
            _point(shared, there[key])
        self._seen = self._versions()

    def forget_host(self) -> None:
        """Free the host memory of what lies on the device."""
        self._host = {}

    @property
    def in_host(self) -> int:
        """Bytes of host memory that are kept."""
        return sum(host.nbytes for host in self._host.values())

    def _versions(self) -> list[int]:
        """Counts that rise whenever a tensor is changed."""
        return [tensor._version for tensor in chain.from_iterable(self._shared.values())]


def _tensors(model: Model[Any, Any], device: str) -> list[Any]:
    """Those on the device: what a model keeps elsewhere stays there."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    kind = torch.device(device).type
    plain = [each for each in attributes(model) if isinstance(each, torch.Tensor)]
    inner = [tensor for module in modules(model) for tensor in chain(module.parameters(), module.buffers())]
    return list({id(each): each for each in (*inner, *plain) if each.device.type == kind}.values())


def _octets(storage: Any, device: Any) -> Any:
    torch = sys.modules["torch"]
    return torch.empty(0, dtype=torch.uint8, device=device).set_(storage)


def _point(tensors: list[Any], octets: Any) -> None:
    """Let tensors that share memory share that of `octets`, each at its own place in it."""
    torch = sys.modules["torch"]
    for tensor in tensors:
        view = torch.empty(0, dtype=tensor.dtype, device=octets.device)
        place = tensor.storage_offset(), tensor.size(), tensor.stride()
        tensor.data = view.set_(octets.untyped_storage(), *place)


def _wait(devices: Iterable[Any]) -> None:
    """Until the copies are done: a GPU queues them."""
    for device in {each for each in devices if each.type == "cuda"}:
        sys.modules["torch"].cuda.synchronize(device)
