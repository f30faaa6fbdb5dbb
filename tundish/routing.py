"""An alias' routing: the version that a job of it runs on, and the one that gets a copy. Pure, but for the dice."""

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
        """A version by its weight. A sticky key has its fixed place among the shares: jobs of one key get one version,
        and where a share grows, who was in it stays in it."""
        place = random.random() if sticky_key is None else _place(sticky_key)
        left = place * sum(self.weights.values())
        drawn = ""
        for version in sorted(self.weights):
            if self.weights[version]:
                drawn = version
                left -= self.weights[version]
                if left < 0:
                    break
        return drawn


def _place(sticky_key: str) -> float:
    """From 0 to below 1: 53 bits, all that a float holds exactly."""
    return (int.from_bytes(sha256(sticky_key.encode()).digest()[:8], "big") >> 11) / (1 << 53)
