"""Send jobs again: those that Redis lost, and those whose worker gave them up."""

import logging
from collections.abc import Sequence

import redis

from tundish import queue, store

log = logging.getLogger(__name__)


def resend(client: redis.Redis, jobs: Sequence[store.Unsent], max_attempts: int) -> None:
    """Each in its place, or behind all that waits. A job on its last allowed attempt, or from a batch that hung, is
    told to run alone. What Redis does not take now, the sweep finds later."""
    groups: dict[tuple[queue.Queue, bool, bool], list[store.Unsent]] = {}
    for job in sorted(jobs, key=lambda job: job.id.int):
        alone = job.alone or job.deaths >= max_attempts - 1
        groups.setdefault((job.queue, alone, job.in_place), []).append(job)
    try:
        for (source, alone, in_place), group in groups.items():
            sent = min(job.sent_at for job in group).timestamp()
            if in_place:
                queue.put_back(client, source, queue.bundled([job.id.hex for job in group], alone, sent))
            else:
                queue.send(client, [(source, job.id) for job in group], alone, sent)
    except redis.RedisError as error:
        log.warning("%d jobs wait for the next sweep, Redis did not take them: %s", len(jobs), error)
