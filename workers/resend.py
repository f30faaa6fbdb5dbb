"""Send jobs again: those that Redis lost, and those whose worker gave them up."""

import logging
from collections.abc import Sequence

import redis

from tundish import queue, store

log = logging.getLogger(__name__)


def resend(client: redis.Redis, jobs: Sequence[store.Unsent], max_attempts: int) -> None:
    """A job on its last allowed attempt is told to run alone. What Redis does not take now, the sweep finds later."""
    last = [job for job in jobs if job.deaths >= max_attempts - 1]
    rest = [job for job in jobs if job.deaths < max_attempts - 1]
    try:
        for group, alone in ((last, True), (rest, False)):
            if group:
                queue.send(client, [(job.queue, job.id) for job in group], alone)
    except redis.RedisError as error:
        log.warning("%d jobs wait for the next sweep, Redis did not take them: %s", len(jobs), error)
