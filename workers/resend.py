"""Send jobs again: those that Redis lost, and those whose worker gave them up."""

import logging
from collections.abc import Sequence

import redis

from tundish import queue, store

log = logging.getLogger(__name__)


def resend(client: redis.Redis, jobs: Sequence[store.Unsent], max_attempts: int, *, in_front: bool = False) -> None:
    """Behind all that waits, for a worker may have died of them, or have them still; `in_front` where one let go of
    them in good order. A job on its last allowed attempt, or from a batch that hung, is told to run alone. What Redis
    does not take now, the sweep finds later."""
    ordered = sorted(jobs, key=lambda job: job.id.int)
    alone = [job for job in ordered if job.alone or job.deaths >= max_attempts - 1]
    together = [job for job in ordered if not (job.alone or job.deaths >= max_attempts - 1)]
    try:
        for group in (alone, together):
            if group:
                first_sent = min(job.sent for job in group) if in_front else None
                queue.send(client, [(job.queue, job.id) for job in group], group is alone, first_sent)
    except redis.RedisError as error:
        log.warning("%d jobs wait for the next sweep, Redis did not take them: %s", len(jobs), error)
