"""How much the benches do."""

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """The full counts, or those of `--quick`: they show that a bench works, and measure nothing."""

    quick: bool = False

    @property
    def runs(self) -> int:
        return self.of(3, 1)

    def of(self, full: T, quick: T) -> T:
        return quick if self.quick else full
