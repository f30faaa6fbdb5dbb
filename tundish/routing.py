"""An alias' routing: the version that a job of it runs on, and the one that gets a copy. Pure, but for the dice."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class Routing:
    """`weights` by version: whole numbers from 0, one at least over 0. `shadow` is the version that runs a copy."""

    weights: Mapping[str, int]
    shadow: str | None = None

    def draw(self, sticky_key: str | None = None) -> str:
        """A version by its weight. Jobs of one sticky key get one version: where the weight of one is raised, or one is
        added, keys move to that one and to no other (weighted rendezvous hashing)."""
        if sticky_key is None:
            return random.choices(tuple(self.weights), self.weights.values())[0]  # type: ignore[arg-type]  # any iterable
        drawn = {version: weight for version, weight in self.weights.items() if weight}
        return min(drawn, key=lambda version: -math.log(_share(sticky_key, version)) / drawn[version])


def _share(sticky_key: str, version: str) -> float:
    """Over 0 and up to 1, the same for a key and a version for ever: 53 bits, all that a float holds exactly."""
    digest = sha256(f"{version}\0{sticky_key}".encode()).digest()
    return ((int.from_bytes(digest[:8], "big") >> 11) + 1) / (1 << 53)
