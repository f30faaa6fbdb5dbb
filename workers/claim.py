"""Claim: a batch's jobs become this worker's, under one lease, and their inputs arrive with them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from tundish import store
from tundish.blobs import BlobMissing, Blobs
from tundish.ids import new_uuid, to_text
from workers.batch import Draft, Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch in this worker's hands."""

    id: UUID
    target: Target
    jobs: Sequence[store.ClaimedJob]


def claim(engine: store.Engine, worker: UUID, draft: Draft, *, lease: float, max_attempts: int) -> Claim | None:
    """Take what is still queued of a draft; None where nothing is: another worker has it, or it was a duplicate."""
    id = new_uuid()
    with engine.connect() as connection:
        jobs = store.claim(connection, id, worker, draft.ids, lease=lease, max_attempts=max_attempts)
    return Claim(id, draft.target, jobs) if jobs else None


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
