"""Prepare: a claimed batch's inputs are fetched and decoded, while the device computes the batch before."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tundish import execute
from tundish.blobs import BlobMissing, Blobs
from tundish.ids import to_text
from tundish.job import Code
from tundish.store import ClaimedJob
from workers.batch import Target
from workers.claim import Claim
from workers.load import Loaded

log = logging.getLogger(__name__)

_GONE = execute.Failed(Code.INPUT_UNAVAILABLE, "the input is no longer in the blob store; submit it again")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that can run: for each job, in order, its item and its input, or Failed where it has none."""

    claim: Claim
    items: Sequence[execute.Item]
    inputs: list[Any]


def prepare(models: Mapping[Target, Loaded], claim: Claim, blobs: Blobs, *, timeout: float) -> Prepared:
    """A predict may take the job's own time-out, else its model's, else `timeout` seconds. Raises BlobUnavailable."""
    loaded = models[claim.target]
    timeout = loaded.version.timeout or timeout
    missing: dict[int, execute.Failed] = {}
    items: list[execute.Item] = []
    for job in claim.jobs:
        body = job.body if job.blob is None else _fetched(job, blobs)
        if body is None:
            missing[len(items)] = claim.failed.get(job.id, _GONE)
        items.append(execute.Item(body or b"", job.content_type, job.timeout or timeout))
    inputs = execute.decode(loaded.reads, items)
    for place, failed in missing.items():
        inputs[place] = failed
    return Prepared(claim, items, inputs)


def _fetched(job: ClaimedJob, blobs: Blobs) -> bytes | None:
    """None where the blob is gone."""
    try:
        return blobs.get(job.blob or "")
    except BlobMissing as error:
        log.warning("the input of a job is gone: %s", error, extra={"job": to_text("job", job.id)})
        return None
