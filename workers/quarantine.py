"""Quarantine: a worker whose device cannot be used says so, claims nothing, and looks again after a while.

It looks as a new process in its own place and under its id: what CUDA has failed at once may fail for as long as the
process lives. So a device that is gone is one lost worker, whoever supervises it, until it is back or is ended.
"""

import logging
import os
import signal
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from uuid import UUID

from tundish import store
from tundish.ids import new_uuid
from workers.heart import Heart

log = logging.getLogger(__name__)

#: Seconds of the first and the longest wait between two looks at the device.
WAIT = (30.0, 600.0)
#: Where a process leaves its quarantine to the one that it becomes.
LEFT = "_TUNDISH_QUARANTINE"


@dataclass(frozen=True)
class Quarantine:
    """What `worker` does where its device cannot be used: it looks again after `wait` seconds."""

    worker: UUID
    wait: float

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> "Quarantine":
        """That of the process which became this one; else that of a new worker."""
        worker, _, wait = environment.pop(LEFT, "").partition(" ")
        return cls(UUID(worker), float(wait)) if worker else cls(new_uuid(), WAIT[0])

    def next(self) -> dict[str, str]:
        """What the process that this one becomes finds in its environment."""
        return {LEFT: f"{self.worker} {min(2 * self.wait, WAIT[1])}"}

    def hold(self, heart: Heart) -> int:
        """The exit status, once SIGTERM or SIGINT comes; after the wait this process becomes one that looks again."""
        told: SimpleQueue[int] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: told.put(number))
        try:
            heart.start()
        except store.StoreError as error:
            log.warning("Postgres does not know yet that this worker is lost: %s", error.orig)
        try:
            told.get(timeout=self.wait)
        except Empty:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            if told.empty():  # a signal that comes now ends what this becomes, too
                command = [sys.executable, *sys.orig_argv[1:]]
                os.execve(sys.executable, command, {**os.environ, **self.next()})
        heart.stop()
        return 0
