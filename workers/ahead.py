"""Ahead: what models collate for the next batches, in a thread of its own, while the device computes the one before."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from tundish import execute
from workers.load import Loaded


class Ahead:
    """Makes plans of batches for a device, in their order. One that is cancelled before its turn is not made. `thread`
    ends once it was stopped, and what it makes then is made."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._stopped = False
        self._asked: SimpleQueue[tuple[Future[execute.Plan], Callable[[], execute.Plan]]] = SimpleQueue()
        # A daemon: a process that ends does not wait for a model that hangs.
        self.thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self.thread.start()

    def plan(self, loaded: Loaded, items: Sequence[execute.Item], inputs: Sequence[Any]) -> Future[execute.Plan]:
        """The plan of a batch, once it is made; or what kept it from that."""
        future: Future[execute.Plan] = Future()
        make = partial(
            execute.ahead, loaded.model, items, inputs, self._device, ceilings=loaded.ceilings, making=loaded.making
        )
        self._asked.put((future, make))
        return future

    def stop(self) -> None:
        """Nothing more is begun: models may be unloaded then, and a process that ends while torch runs in a thread
        aborts."""
        self._stopped = True
        self._asked.put((Future(), lambda: execute.Plan([], {})))  # it may wait for one

    def _run(self) -> None:
        while not self._stopped:
            self._make(*self._asked.get())

    def _make(self, future: Future[execute.Plan], make: Callable[[], execute.Plan]) -> None:
        """What it makes is held by nobody else when it returns: it may take much of the device."""
        if self._stopped or not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(make())
        except BaseException as error:  # it comes again where the batch runs, and is told there
            future.set_exception(error)
