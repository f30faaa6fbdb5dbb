"""What operators have paused of a worker's models: a notice over Redis tells of a change at once, and where Redis lost
it, a look at Postgres finds it."""

import logging
import threading
from collections.abc import Callable, Iterable

import redis

from tundish import queue, store
from workers.batch import Target

log = logging.getLogger(__name__)

#: Seconds between two looks where no notice comes.
LOOK = 2.0


class Pauses:
    """Tells `on_change` which of `targets` are paused in `pool`, whenever that has changed."""

    def __init__(
        self,
        engine: store.Engine,
        client: redis.Redis,
        pool: str,
        targets: Callable[[], Iterable[Target]],
        on_change: Callable[[frozenset[Target]], None],
    ) -> None:
        self._engine = engine
        self._client = client
        self._pool = pool
        self._targets = targets
        self._on_change = on_change
        self._stopped = threading.Event()
        self.paused: frozenset[Target] = frozenset()

    def start(self) -> None:
        """Look once, then go on in the background. Raises StoreError where the first look fails."""
        self._look()
        threading.Thread(target=self._run, name="pauses", daemon=True).start()

    def stop(self) -> None:
        """End with the next notice, or within LOOK seconds."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as notices:  # type: ignore[no-untyped-call]  # redis-py's
                    notices.subscribe(queue.CATALOG)
                    while not self._stopped.is_set():
                        self._try()
                        notices.get_message(timeout=LOOK)
            except (redis.RedisError, OSError) as error:
                log.debug("pauses show slowly, Redis does not answer: %s", error)
                self._try()
                self._stopped.wait(LOOK)

    def _try(self) -> None:
        try:
            self._look()
        except store.StoreError as error:
            log.warning("cannot read what is paused: %s", error.orig)

    def _look(self) -> None:
        with self._engine.connect() as connection:
            stopped = store.paused(connection)
        paused = frozenset(each for each in self._targets() if stopped.holds(self._pool, each.model, each.version))
        if paused != self.paused:
            self.paused = paused
            log.info("paused: %s", ", ".join(map(str, paused)) or "nothing any more")
            self._on_change(paused)
