"""What the shelf knows of one model: where its weights lie, what they take, and what bringing them costs."""

import math
from dataclasses import dataclass
from enum import Enum

from tundish.catalog import Served, describe
from tundish.codec import codecs_of
from tundish.lineup import Known
from tundish.model import Model
from workers.batch import Target
from workers.folders import Folders
from workers.load import Loaded
from workers.turn import Standing
from workers.weights import Weights

#: Seconds in which half of a model's uses are forgotten.
HALF_LIFE = 60.0
#: Bytes a second from host memory, until it was measured: a PCIe 4 GPU copies ten times as much.
COPY_RATE = 2e9


class Place(Enum):
    """Where the weights of a model lie."""

    DEVICE = "device"
    HOST = "host"
    NOWHERE = "nowhere"


@dataclass(slots=True)
class Entry:
    """One model. `known` are its bytes on the device, None until it was measured, and `residue` those that its move to
    host memory left there. `load_seconds` and `copy_seconds` are what it took to bring it the last time, from nowhere
    and from host memory, with what made room for it; `failures` in a row have kept it from being brought, the last for
    the `error`. Times are of the monotonic clock."""

    served: Served
    loaded: Loaded
    known: int | None
    place: Place = Place.NOWHERE
    weights: Weights | None = None
    residue: int = 0
    since: float = 0.0
    used: float = -math.inf
    heat: float = 0.0
    load_seconds: float = 0.0
    copy_seconds: float | None = None
    failures: int = 0
    error: str | None = None
    rests_until: float = 0.0

    @classmethod
    def of(cls, served: Served) -> "Entry":
        """A model that is not loaded. Raises DefinitionError."""
        reads, writes = codecs_of(served.model)
        folders = Folders() if reads.in_files or writes.in_files else None
        return cls(served, Loaded(reads, writes, Known.of(describe(served)), folders), served.model.memory)

    @property
    def name(self) -> str:
        return str(Target.of(self.served.model))

    @property
    def size(self) -> int:
        """Bytes on the device; 0 while nobody knows."""
        return self.known or 0

    @property
    def pinned(self) -> bool:
        return self.served.model.pinned

    @property
    def there(self) -> bool:
        """On the device."""
        return self.place is Place.DEVICE

    @property
    def held(self) -> int:
        """Bytes of the device that it takes now."""
        return self.size if self.there else self.residue

    @property
    def moves_itself(self) -> bool:
        """The model moves its weights itself."""
        return self.served.model.to is not Model.to

    @property
    def movable(self) -> bool:
        return self.moves_itself or bool(self.weights and self.weights.movable)

    @property
    def in_host(self) -> int:
        """Bytes of host memory that are kept for it."""
        if self.moves_itself:
            return self.size if self.place is Place.HOST else 0
        return self.weights.in_host if self.weights else 0

    def arrive(self, now: float) -> None:
        """It is on the device from now on."""
        self.place, self.since, self.residue, self.error = Place.DEVICE, now, 0, None

    def use(self, now: float) -> None:
        """A batch of it has ended."""
        self.heat = self.heat_at(now) + 1
        self.used = now

    def heat_at(self, now: float) -> float:
        """Its batches, of which half are forgotten after a while."""
        return self.heat * 2 ** ((self.used - now) / HALF_LIFE) if self.heat else 0.0

    def standing(self, host_budget: float, now: float) -> Standing:
        """As the policy sees it; `host_budget` are the bytes of host memory that all models may take."""
        copied = self.place is Place.HOST or (self.there and self.movable and self.size <= host_budget)
        copy = self.size / COPY_RATE if self.copy_seconds is None else self.copy_seconds
        return Standing(
            size=self.size,
            reload=min(copy, self.load_seconds) if copied else self.load_seconds,
            there=self.there,
            pinned=self.pinned,
            since=self.since,
            used=self.used,
            heat=self.heat_at(now),
            residue=self.residue,
        )
