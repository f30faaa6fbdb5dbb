"""Claim: a batch's jobs become this worker's, under one lease, and their inputs arrive with them."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from tundish import store
from tundish.blobs import BlobMissing, Blobs
from tundish.ids import new_uuid, to_text
from workers.batch import Draft, Target

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Claim:
    """A batch in this worker's hands. `now` is the database's clock, carried on by this machine's."""

    id: UUID
    target: Target
    jobs: Sequence[store.ClaimedJob]
    claimed_at: datetime
    _at: float = field(default_factory=time.monotonic)

    def now(self) -> datetime:
        return self.claimed_at + timedelta(seconds=time.monotonic() - self._at)


def claim(engine: store.Engine, worker: UUID, draft: Draft, *, lease: float, max_attempts: int) -> Claim | None:
    """Take what is still queued of a draft; None where nothing is: another worker has it, or it was a duplicate."""
    id = new_uuid()
    with engine.begin() as connection:
        jobs = store.claim(connection, id, worker, draft.ids, lease=lease, max_attempts=max_attempts)
    return Claim(id, draft.target, jobs, jobs[0].now) if jobs else None


def inputs(claim: Claim, blobs: Blobs) -> list[bytes | None]:
    """The input of each job, fetched from its blob where it is not inline; None where that is gone. Raises
    BlobUnavailable."""
    found: list[bytes | None] = []
    for job in claim.jobs:
        try:
            found.append(job.body if job.blob is None else blobs.get(job.blob))
        except BlobMissing as error:
            log.warning("the input of a job is gone: %s", error, extra={"job": to_text("job", job.id)})
            found.append(None)
    return found
