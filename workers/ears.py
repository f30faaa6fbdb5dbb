"""Ears: a worker that hears nothing although messages wait for it ends, so that its supervisor starts a new one. What
it has no room for, or whose turn on the device has not come, does not wait for it.

Celery connects again by itself; this is for the day on which it seems to consume and does not, as after a reset of
Redis (celery 8030, 10205, 10302).
"""

import logging
import os
import threading
import time
from collections.abc import Callable

import redis

from workers.exits import DEAF
from workers.intake import Intake

log = logging.getLogger(__name__)

#: Seconds of silence after which to look whether messages wait.
SILENT = 15.0
#: Seconds between two looks.
LOOK = 5.0


class Ears:
    """Looks at the lists that `intake` is fed from, while `idle` says that the device has nothing to do."""

    def __init__(self, client: redis.Redis, intake: Intake, idle: Callable[[], bool]) -> None:
        self._client = client
        self._intake = intake
        self._idle = idle
        threading.Thread(target=self._run, name="ears", daemon=True).start()

    def _run(self) -> None:
        passed = False  # messages waited at the last look, and none has come since
        while True:
            time.sleep(LOOK)
            deaf = self._idle() and self._intake.silent > SILENT and self._waiting()
            if deaf and passed:
                log.critical("messages wait and none arrives here: this worker ends, to be started anew")
                os._exit(DEAF)
            passed = deaf

    def _waiting(self) -> bool:
        pipeline = self._client.pipeline(transaction=False)
        for name in filter(self._intake.hears, self._intake.consumers.names()):
            pipeline.llen(name)
        try:
            return any(pipeline.execute())
        except redis.RedisError:
            return False  # away, not deaf
