"""Watch: a predict that runs over its time-out loses its lease, and a little later its process ends.

A thread of Python sees most hangs. Where the hung call holds the GIL no thread of this process runs, so that a timer in
C, armed beside it, ends the process.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

#: Seconds past its time-out that a predict may take to come back; then its process is ended.
PATIENCE = 10.0
#: Seconds later the timer in C fires, where the thread could not.
TIMER = 2.0
#: Seconds between two looks at the clock: a bell for each batch would cost a switch of threads.
LOOK = 0.25
#: The exit status of a worker whose predict hung.
HUNG = 70


class Watch:
    """Guards the predict calls of one thread. `on_overdue` is called once for a call that is over its time-out; it
    must return soon."""

    def __init__(self, on_overdue: Callable[[], None]) -> None:
        self._on_overdue = on_overdue
        self._deadline = float("inf")
        self.overdue = False
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    @contextmanager
    def __call__(self, timeout: float) -> Iterator[None]:
        """Guard the block, which may take `timeout` seconds."""
        faulthandler.dump_traceback_later(timeout + PATIENCE + TIMER, exit=True, file=sys.__stderr__ or 2)
        self._deadline = time.monotonic() + timeout
        try:
            yield
        finally:
            self._deadline = float("inf")
            self.overdue = False
            faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while True:
            time.sleep(LOOK)
            over = time.monotonic() - self._deadline
            if over > 0 and not self.overdue:
                self.overdue = True
                log.error("predict is over its time-out")
                self._on_overdue()
            if over > PATIENCE:
                log.critical("predict hangs: this worker ends, its batch goes on elsewhere")
                faulthandler.dump_traceback(file=sys.__stderr__ or 2)
                os._exit(HUNG)
