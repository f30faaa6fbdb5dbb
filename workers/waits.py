"""Waits: of which models so many claims wait for their inputs that no more are drafted. Time is passed in."""

import threading
from collections import Counter

from workers.batch import Target

#: Claims of one model whose inputs are waited for at once.
MOST = 16
#: Seconds in which none of them gets its inputs, after which they are stuck.
STUCK = 2.0


class Waits:
    """Counts the claims of each model that wait. From any thread."""

    def __init__(self) -> None:
        self._waiting: Counter[Target] = Counter()
        self._lock = threading.Lock()

    def begin(self, target: Target) -> bool:
        """One more waits, where that may be."""
        with self._lock:
            begins = self._waiting[target] < MOST
            self._waiting[target] += begins
            return begins

    @property
    def some(self) -> bool:
        """Whether any claim waits."""
        with self._lock:
            return self._waiting.total() > 0

    def end(self, target: Target) -> None:
        """One waits no more."""
        with self._lock:
            self._waiting[target] -= 1

    def until(self, target: Target, now: float) -> float:
        """The moment before which no more are drafted, as one has just begun or ended: while as many wait as may, one
        is drafted for each that ends. Where they are stuck, what waits for nothing shall not wait for them."""
        return now + STUCK if self._waiting[target] >= MOST else now
