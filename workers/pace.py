"""How fast a worker is: what it ended lately, and what that took of its device. Pure; time is passed in."""

import threading
from collections import deque
from dataclasses import dataclass, field

#: Seconds over which the pace is taken.
LATELY = 60.0


@dataclass(slots=True)
class Pace:
    """The batches of the last LATELY seconds of a worker that began at `began`; several threads may tell of them."""

    began: float
    batch_size: int | None = None  # of the last batch
    job_ms: float | None = None  # of the device's time, for one job, with what it took to bring the models
    _batches: deque[tuple[float, int, float]] = field(default_factory=deque)
    _jobs: int = 0  # in the batches
    _ms: float = 0.0
    _brought_ms: float = 0.0  # since the last batch
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def brought(self, ms: float) -> None:
        """The device was given a model for so long: it belongs to the next batch that ends."""
        with self._lock:
            self._brought_ms += ms

    def ended(self, now: float, jobs: int, predict_ms: float) -> None:
        """A batch of so many jobs has ended."""
        with self._lock:
            ms, self._brought_ms = predict_ms + self._brought_ms, 0.0
            self._batches.append((now, jobs, ms))
            self._jobs, self._ms = self._jobs + jobs, self._ms + ms
            self._forget(now)
            self.batch_size, self.job_ms = jobs, max(0.0, self._ms) / self._jobs

    def per_s(self, now: float) -> float:
        """Jobs that ended in a second, lately."""
        with self._lock:
            self._forget(now)
            return self._jobs / max(1.0, min(LATELY, now - self.began))

    def _forget(self, now: float) -> None:
        while self._batches and self._batches[0][0] < now - LATELY:
            _, jobs, ms = self._batches.popleft()
            self._jobs, self._ms = self._jobs - jobs, self._ms - ms
