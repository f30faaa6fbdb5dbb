"""Watch: what waits behind a long batch is given back; a predict over its time-out loses its lease, and a little later
its process ends.

A thread of Python sees most hangs. Where the hung call holds the GIL no thread of this process runs, so that a timer in
C, armed beside it, ends the process. Arming starts a thread in C: it is done once a second and not once a batch (8 % of
the no-op drain).
"""

import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workers.exits import HUNG

log = logging.getLogger(__name__)

#: Seconds that a batch may run before what was claimed or fetched behind it is given back.
LONG = 5.0
#: Seconds past its time-out that a predict may take to come back; then its process is ended.
PATIENCE = 10.0
#: Seconds later, at most, the timer in C fires where the thread could not. Calls that end about then share one.
TIMER = 2.0
#: Seconds between two looks at the clock: a bell for each batch would cost a switch of threads.
LOOK = 0.25


class Watch:
    """Guards the batches of one thread. `on_long` is called, again and again, while a batch has run for over LONG
    seconds; `on_overdue` likewise while a predict call is over its time-out. Both must return soon."""

    def __init__(self, on_long: Callable[[], None], on_overdue: Callable[[], None]) -> None:
        self._on_long = on_long
        self._on_overdue = on_overdue
        self._runs, self._thread = "", 0  # whose batch, and the thread that runs it
        self._began = float("inf")
        self._timeout = 0.0  # of the call that runs
        self._deadline = float("inf")
        self._beside = float("inf")  # that of what another thread runs
        self._told = float("inf")  # the last deadline that was passed
        self._fires = 0.0  # when the timer in C does; 0 while it is not armed
        self._arming = threading.Lock()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    @contextmanager
    def batch(self, of: object) -> Iterator[None]:
        """Guard the block, which runs a batch of a model in one predict call or in several."""
        self._runs, self._thread = str(of), threading.get_ident()
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = float("inf")

    @property
    def running(self) -> float:
        """Seconds that the batch has run; 0 or less where none does."""
        return time.monotonic() - self._began

    @property
    def overdue(self) -> bool:
        """Whether a predict call is over its time-out."""
        return time.monotonic() > self._deadline

    @contextmanager
    def __call__(self, timeout: float) -> Iterator[None]:
        """Guard the block, which may take `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._timeout, self._deadline = timeout, deadline
        self._arm(deadline + PATIENCE)
        try:
            yield
        finally:
            self._deadline = float("inf")

    @contextmanager
    def beside(self, timeout: float) -> Iterator[None]:
        """Guard the block, which runs in another thread, where it holds the GIL: then nobody comes to wait for it under
        a time-out of their own, which ends all other hangs."""
        self._beside = time.monotonic() + timeout
        self._rearm()
        try:
            yield
        finally:
            self._beside = float("inf")

    def _arm(self, earliest: float) -> None:
        with self._arming:
            self._fire(earliest)

    def _rearm(self) -> None:
        """Where no predict call runs, the timer is for what runs beside, for as long as any thread of Python runs."""
        with self._arming:
            if self._deadline < float("inf"):
                return
            if self._beside < float("inf"):
                self._fire(max(self._beside, time.monotonic()) + PATIENCE)
            elif self._fires:
                self._fires = 0.0
                faulthandler.cancel_dump_traceback_later()

    def _fire(self, earliest: float) -> None:
        """See to it that the timer in C fires within TIMER seconds after `earliest`, and not before."""
        if not earliest < self._fires <= earliest + TIMER:
            self._fires = earliest + TIMER
            faulthandler.dump_traceback_later(self._fires - time.monotonic(), exit=True, file=sys.__stderr__ or 2)

    def _run(self) -> None:
        while True:
            time.sleep(LOOK)
            try:
                self._look()
            except Exception:  # or nobody would end a predict that hangs
                log.exception("a look at the running batch failed")

    def _look(self) -> None:
        if self.running > LONG:
            self._on_long()
        self._rearm()
        deadline = self._deadline
        over = time.monotonic() - deadline
        if over > 0:
            if deadline != self._told:
                self._told = deadline
                log.error("%s: predict is over its time-out of %g s", self._runs, self._timeout)
            self._on_overdue()  # again: it may have failed, and a heart-beat on its way takes it back
        if over > PATIENCE:
            faulthandler.dump_traceback(file=sys.__stderr__ or 2)
            log.critical(
                "%s: predict hangs: this worker ends, its batch goes on elsewhere%s", self._runs, self._where()
            )
            os._exit(HUNG)

    def _where(self) -> str:
        """The lines in which it hangs; what all threads do is a page."""
        frame = sys._current_frames().get(self._thread)
        return "\n" + "".join(traceback.format_stack(frame)).rstrip() if frame else ""
