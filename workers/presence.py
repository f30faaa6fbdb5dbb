"""What a worker says of itself with each heart-beat."""

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tundish import store
from workers.batch import Target
from workers.pace import Pace


def _uncounted() -> tuple[int, int] | None:
    return None


@dataclass(frozen=True)
class Presence:
    """`models` that its device can hold, and the `places` of all; `memory` of its device, (total, used) in bytes, None
    where that is not counted."""

    id: UUID
    pool: str
    device: str
    models: Callable[[], Iterable[Target]]
    places: Callable[[], Mapping[str, dict[str, Any]]]
    idle: Callable[[], bool]
    pace: Pace
    memory: Callable[[], tuple[int, int] | None] = _uncounted

    def __call__(self, state: str | None = None) -> store.Worker:
        """The worker at this moment; in `state`, where that is not to be told from whether it is idle."""
        total, used = self.memory() or (None, None)
        return store.Worker(
            id=self.id,
            pool=self.pool,
            device=self.device,
            host=socket.gethostname(),
            pid=os.getpid(),
            models=[str(target) for target in self.models()],
            state=state or ("idle" if self.idle() else "busy"),
            memory_total=total,
            memory_used=used,
            batch_size=self.pace.batch_size,
            jobs_per_s=self.pace.per_s(time.monotonic()),
            job_ms=self.pace.job_ms,
            places=dict(self.places()),
        )
