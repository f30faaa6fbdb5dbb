"""Send jobs again: those that Redis lost, and those whose worker gave them up."""

import logging
from collections.abc import Sequence

import redis

from tundish import queue, store

log = logging.getLogger(__name__)


def resend(client: redis.Redis, jobs: Sequence[store.Unsent], max_attempts: int) -> None:
    """A job on its last allowed attempt, or from a batch that hung, is told to run alone. What Redis does not take now,
    the sweep finds later."""
    alone = [job for job in jobs if job.alone or job.deaths >= max_attempts - 1]
    together = [job for job in jobs if not (job.alone or job.deaths >= max_attempts - 1)]
    try:
        for group in (alone, together):
            if group:
                queue.send(client, [(job.queue, job.id) for job in group], group is alone)
    except redis.RedisError as error:
        log.warning("%d jobs wait for the next sweep, Redis did not take them: %s", len(jobs), error)
