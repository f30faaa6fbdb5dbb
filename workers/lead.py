"""Lead: how far claims go ahead of the device. Pure: what runs, and for how long, is passed in."""

import math

from workers.batch import AHEAD, Target

#: Seconds of a batch behind which nothing is claimed: it gains a few milliseconds, and another worker may be idle.
SLOW = 1.0


class Lead:
    """What is known of how long batches take."""

    def __init__(self) -> None:
        self._took: dict[Target, float] = {}
        self.next_up: Target | None = None  # whose batch was the last to be prepared

    def took(self, target: Target, seconds: float) -> None:
        """Its last batch."""
        self._took[target] = seconds

    def quick(self, target: Target) -> bool:
        """Whether its last batch took so little that one which runs in vain harms nobody."""
        return self._took.get(target, math.inf) < AHEAD

    def pending(self, running: Target | None, ran: float) -> float:
        """Seconds that a batch takes which has run for `ran`, or which comes next, by the last one of its target; who
        knows, of a first."""
        targets = [each for each in (running, self.next_up) if each]
        return max(ran, *(self._took.get(each, math.inf) for each in targets), 0.0)


def wanted(pending: float, *, idle: bool, waits: bool) -> bool:
    """Whether a batch is to be claimed: for an idle device; ahead of it, of what takes a while where none `waits`; but
    not behind one that takes long."""
    return idle or pending < AHEAD or (pending < SLOW and not waits)
