"""The heart-beat of a worker: it holds its claims and says that it is there."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from tundish import store

log = logging.getLogger(__name__)


class Heart:
    """Beats three times a lease, in a thread of its own."""

    def __init__(
        self,
        engine: store.Engine,
        worker: store.Worker,
        alive: Callable[[], Sequence[UUID]],
        idle: Callable[[], bool],
        lease: float,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._alive = alive
        self._idle = idle
        self._lease = lease
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        """Write the worker's presence once, then go on in the background. Raises StoreError where the first fails."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Say that the worker is gone."""
        self._stopped.set()
        self._thread.join()
        with self._engine.begin() as connection:
            store.see_worker(connection, replace(self._worker, state="stopped"))

    def _run(self) -> None:
        while not self._stopped.wait(self._lease / 3):
            try:
                self._beat()
            except store.StoreError as error:
                log.warning("a heart-beat failed: %s", error.orig)

    def _beat(self) -> None:
        with self._engine.begin() as connection:
            if alive := self._alive():
                store.renew(connection, alive, lease=self._lease)
            store.see_worker(connection, replace(self._worker, state="idle" if self._idle() else "busy"))
