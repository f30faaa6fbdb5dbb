"""The heart-beat of a worker: it holds its claims and says that it is there."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from tundish import store

log = logging.getLogger(__name__)


class Heart:
    """Beats three times a lease (seconds), in a thread of its own; `presence` gives the worker as it is at the moment,
    `claims` those to renew. `register` is called where the catalog lacks its models, and may raise StoreError."""

    def __init__(
        self,
        engine: store.Engine,
        presence: Callable[[], store.Worker],
        claims: Callable[[], Sequence[UUID]],
        lease: float,
        register: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._presence = presence
        self._claims = claims
        self._lease = lease
        self._register = register
        self._bell = threading.Event()
        self._state: str | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        """Write the worker's presence once, and go on in the background. Raises StoreError where the first fails."""
        try:
            self._beat()
        finally:
            self._thread.start()

    def beat(self) -> None:
        """Say now what has changed."""
        self._bell.set()

    def drain(self, state: str = "draining") -> None:
        """Say at once that the worker claims nothing any more; that its device is lost is said for good."""
        self._state = "lost" if "lost" in (state, self._state) else state
        self._bell.set()

    def stop(self, state: str = "stopped") -> None:
        """Say what has become of the worker, where Postgres answers."""
        self._state = state
        self._ended = True
        self._bell.set()
        self._thread.join(self._lease / 3)  # its last beat may ask a device that is gone, and hang
        self._try()

    def _run(self) -> None:
        while True:
            if self._bell.wait(self._lease / 3):
                self._bell.clear()
            if self._ended:
                return
            self._try()

    def _try(self) -> None:
        try:
            self._beat()
        except store.StoreError as error:
            log.warning("a heart-beat failed: %s", error.orig)

    def _beat(self) -> None:
        worker = self._presence()
        with self._engine.begin() as connection:
            if claims := self._claims():
                store.renew(connection, claims, lease=self._lease)
            known = store.see_worker(connection, replace(worker, state=self._state or worker.state))
        if not known:
            self._register()
