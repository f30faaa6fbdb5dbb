"""Ears: a worker that hears nothing although messages wait for it ends, so that its supervisor starts a new one.

Celery connects again by itself; this is for the day on which it does not, or was told to stop consuming.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence

import redis

log = logging.getLogger(__name__)

#: Seconds of silence after which to look whether messages wait.
SILENT = 15.0
#: Seconds between two looks.
LOOK = 5.0
#: The exit status of a worker that heard nothing.
DEAF = 69


class Ears:
    """Looks at the lists `names` while the device is idle. `silent` gives the seconds since the last message."""

    def __init__(
        self, client: redis.Redis, names: Sequence[str], silent: Callable[[], float], idle: Callable[[], bool]
    ) -> None:
        self._client = client
        self._names = names
        self._silent = silent
        self._idle = idle
        threading.Thread(target=self._run, name="ears", daemon=True).start()

    def _run(self) -> None:
        passed = False  # messages waited at the last look, and none has come since
        pause = threading.Event()
        while not pause.wait(LOOK):
            deaf = self._idle() and self._silent() > SILENT and self._waiting()
            if deaf and passed:
                log.critical("messages wait and none arrives here: this worker ends, to be started anew")
                os._exit(DEAF)
            passed = deaf

    def _waiting(self) -> bool:
        pipeline = self._client.pipeline(transaction=False)
        for name in self._names:
            pipeline.llen(name)
        try:
            return any(pipeline.execute())
        except redis.RedisError:
            return False  # away, not deaf
