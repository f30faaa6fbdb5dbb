"""Elsewhere: what this worker's device never holds is left to another worker of its pool, where one lists it."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from tundish import store
from workers.batch import Target

log = logging.getLogger(__name__)

#: Seconds between two looks, while there is a model that the device does not hold.
LOOK = 5.0


class Elsewhere:
    """Tells `on_change` which of the `hopeless` models are left to others, whenever that has changed. A worker that was
    not seen within `lease` seconds counts for nothing."""

    def __init__(
        self,
        engine: store.Engine,
        worker: UUID,
        pool: str,
        lease: float,
        hopeless: Callable[[], Iterable[Target]],
        on_change: Callable[[frozenset[Target]], None],
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._pool = pool
        self._lease = lease
        self._hopeless = hopeless
        self._on_change = on_change
        self._left: frozenset[Target] = frozenset()
        self._looking = threading.Lock()

    def start(self) -> None:
        """Look once, then go on in the background. Raises StoreError where the first look fails."""
        self.look()
        threading.Thread(target=self._run, name="elsewhere", daemon=True).start()

    def look(self) -> frozenset[Target]:
        """What is left to others now. From any thread. Raises StoreError."""
        with self._looking:
            return self._look()

    def _look(self) -> frozenset[Target]:
        hopeless = frozenset(self._hopeless())
        listed = self._listed() if hopeless else set()
        left = frozenset(each for each in hopeless if str(each) in listed)
        if left != self._left:
            self._left = left
            names = ", ".join(map(str, left))
            log.info("left to other workers: %s", names or "nothing any more")
            self._on_change(left)
        return left

    def _listed(self) -> set[str]:
        with self._engine.connect() as connection:
            workers = store.workers(connection, seen_within=self._lease)
        others = [each for each in workers if each.pool == self._pool and each.id != self._worker]
        return {name for each in others if each.state in ("idle", "busy") for name in each.models}

    def _run(self) -> None:
        while True:
            time.sleep(LOOK)
            try:
                self.look()
            except store.StoreError as error:
                log.warning("cannot read what other workers list: %s", error.orig)
