"""Ahead: what models collate for the next batches, in a thread of its own, while the device computes the one before."""

import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from tundish.outcome import Item
from tundish.plan import Plan, ahead
from tundish.runtime import Runtime, Watch
from workers.load import Loaded

Made = Future[Plan]


class Ahead:
    """Makes plans of batches for a device, in their order: not one that is cancelled before its turn, nor one that
    nobody holds any more. `guard` watches over each. `thread` ends once it was stopped, and what it makes then is
    made."""

    def __init__(self, device: str, guard: Watch) -> None:
        self._device = device
        self._guard = guard
        self._stopped = False
        self._asked: list[tuple[weakref.ref[Made], Callable[[], Plan]]] = []
        self._changed = threading.Condition()
        # A daemon: a process that ends does not wait for a model that hangs.
        self.thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self.thread.start()

    def plan(self, loaded: Loaded, items: Sequence[Item], inputs: Sequence[Any]) -> Made:
        """The plan of a batch, once it is made; or what kept it from that."""
        future = Made()
        make = partial(self._make, loaded, items, inputs)
        with self._changed:
            # Where the thread hangs, inputs of batches that have run without it are not kept.
            self._asked = [each for each in self._asked if (made := each[0]()) and not made.cancelled()]
            self._asked.append((weakref.ref(future), make))
            self._changed.notify()
        return future

    def stop(self) -> None:
        """Nothing more is begun: models may be unloaded then, and a process that ends while torch runs in a thread
        aborts."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while self._make_next():
            pass  # what it has made is held by nobody here: it may take much of the device

    def _make(self, loaded: Loaded, items: Sequence[Item], inputs: Sequence[Any]) -> Plan:
        runtime = Runtime(self._device, loaded.ceilings, loaded.making)
        with self._guard(min(item.timeout for item in items)):
            return ahead(loaded.model, items, inputs, runtime)

    def _make_next(self) -> bool:
        """False once it was stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked or self._stopped)
            if self._stopped:
                return False
            made, make = self._asked.pop(0)
        future = made()
        if future and future.set_running_or_notify_cancel():
            try:
                future.set_result(make())
            except BaseException as error:  # it comes again where the batch runs, and is told there
                future.set_exception(error)
        return True
