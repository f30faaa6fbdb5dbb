"""Growth: a worker that has run its share of jobs, or has leaked past a limit, drains and is replaced; no job fails.

What leaks is a model's or a library's, and is mended there; until then a worker ends before the machine's memory does.
"""

import logging
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

#: Seconds between two looks.
LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a worker may come to before it is replaced; 0: as much as it likes. `rss` and `device` in bytes."""

    jobs: int = 0
    rss: int = 0
    device: int = 0

    def past(self, jobs: int, rss: int, device: int) -> str | None:
        """Which bound is passed, in words."""
        if 0 < self.jobs <= jobs:
            return f"it has run {jobs:,} jobs, and TUNDISH_MAX_JOBS is {self.jobs:,}"
        if 0 < self.rss < rss:
            return f"it takes {rss:,} bytes of memory, and TUNDISH_MAX_RSS is {self.rss:,}"
        if 0 < self.device < device:
            return f"it takes {device:,} bytes of its device, and TUNDISH_MAX_DEVICE_MEMORY is {self.device:,}"
        return None


def watch(bounds: Bounds, jobs: Callable[[], int], device: Callable[[], int], on_growth: Callable[[], None]) -> None:
    """Look in a thread of its own, and call `on_growth` once."""

    def look() -> None:
        while True:
            time.sleep(LOOK)
            if past := bounds.past(jobs(), rss(), device()):
                log.warning("this worker drains, to be replaced: %s", past)
                on_growth()
                return

    if bounds != Bounds():
        threading.Thread(target=look, name="growth", daemon=True).start()


def rss() -> int:
    """Bytes of memory that this process takes; where the system does not tell, the most that it ever took."""
    try:
        with open("/proc/self/statm") as told:
            return int(told.read().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
