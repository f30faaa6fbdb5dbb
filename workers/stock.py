"""Stock: where a worker's models lie, and what they take of its device and of host memory. It moves nothing."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tundish.catalog import Served
from workers.batch import Target
from workers.entry import Entry
from workers.gpu import Device
from workers.load import Loaded
from workers.share import Share
from workers.turn import Standing


class Stock:
    """Any thread may ask; `share` says how much of the device there is, `host_budget` how much host memory."""

    def __init__(
        self, served: Iterable[Served], device: Device, share: Share, host_budget: Callable[[], float]
    ) -> None:
        self._device = device
        self._share = share
        self.host_budget = host_budget
        self.exchange(entries_of(served))

    def exchange(self, entries: Mapping[Target, Entry]) -> None:
        """These are the models from now on."""
        self.entries = entries
        #: All that are served, on the device or not: what decodes, runs and encodes.
        self.models: Mapping[Target, Loaded] = {target: each.loaded for target, each in entries.items()}

    def holds(self, target: Target) -> bool:
        """Whether the model is on the device."""
        entry = self.entries.get(target)  # they may be exchanged meanwhile
        return entry is not None and entry.there

    def hopeless(self) -> set[Target]:
        """The models that do not fit even where all others leave the device."""
        return self.too_large(self._share.best)

    def able(self) -> list[Target]:
        """All the others."""
        hopeless = self.hopeless()
        return [target for target in self.entries if target not in hopeless]

    def failing(self) -> set[Target]:
        """The models whose jobs hear that they do not fit: where no other worker holds what is missing, nobody is going
        to make room."""
        return self.hopeless() if self._share.others.held else self.too_large(self._share.budget)

    def too_large(self, budget: float) -> set[Target]:
        """The models that do not fit into a budget even where all but the pinned ones leave."""
        return {target for target, each in self.entries.items() if each.size > budget - self.pinned(target)}

    def places(self) -> dict[str, dict[str, Any]]:
        """Where each model lies, by `name@version`, the bytes that it takes of the device while it is there, and why it
        could not be brought there the last time."""
        return {
            each.name: {"place": each.place.value, "bytes": each.known, "error": each.error}
            for each in self.entries.values()
        }

    def memory(self) -> tuple[int, int] | None:
        """Bytes of the device in all and in use; on a CPU those that models may take, where there is a limit."""
        if (told := self._device.memory()) is not None:
            return told
        return None if self._share.best == math.inf else (int(self._share.best), self.held() + self._share.others.held)

    def taken(self) -> int:
        """Bytes of the device that this worker takes."""
        return max(self._device.taken(), self.held())

    def held(self) -> int:
        """Those that its models take."""
        return sum(each.held for each in self.entries.values())

    def free(self) -> float:
        """Those that are left of its share."""
        return self._share.budget - self.held()

    def pinned(self, target: Target) -> int:
        """Those that pinned models take, but for the target."""
        there = [entry for each, entry in self.entries.items() if each != target and entry.there]
        return sum(entry.size for entry in there if entry.pinned)

    def others(self, target: Target) -> list[Target]:
        """What may make room for the target."""
        return [each for each, entry in self.entries.items() if each != target and entry.held and not entry.pinned]

    def standings(self, now: float) -> dict[Target, Standing]:
        """As the policy sees them."""
        host_budget = self.host_budget()
        return {target: each.standing(host_budget, now) for target, each in self.entries.items()}


def entries_of(served: Iterable[Served]) -> dict[Target, Entry]:
    """Models that are not loaded. Raises DefinitionError."""
    return {Target.of(each.model): Entry.of(each) for each in served}
