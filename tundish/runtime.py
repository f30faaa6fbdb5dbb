"""What a batch is run with, and how many items of it at once."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

#: Guards one predict call that may take so many seconds.
Watch = Callable[[float], AbstractContextManager[None]]


class Ceilings:
    """How many items the device's memory holds, learnt from batches that it did not: for one model on one device, by
    the size of the largest input (its power of two)."""

    def __init__(self) -> None:
        self._most: dict[int, int] = {}

    @property
    def learnt(self) -> bool:
        """Whether there was such a batch."""
        return bool(self._most)

    def most(self, size: int) -> float:
        """How many items to run at once where the largest has `size` bytes: what holds for smaller ones holds too."""
        return min((most for bits, most in self._most.items() if bits <= size.bit_length()), default=float("inf"))

    def lower(self, size: int, count: int) -> None:
        lowered = int(min(count, self.most(size)))
        self._most = {**self._most, size.bit_length(): lowered}  # another thread may be reading them


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a batch is run with: the model's device, as torch names it; how many items that holds; a lock for the
    model's `collate` and `cost`, for tokenizers have a state; what guards its calls; and where it may put Files."""

    device: str = "cpu"
    ceilings: Ceilings = field(default_factory=Ceilings)
    making: AbstractContextManager[object] = field(default_factory=Lock)
    watch: Watch = lambda timeout: nullcontext()
    folder: Path | None = None
