"""Prepare: a claimed batch's inputs are read and decoded, while the device computes the batch before."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from tundish import execute, strictjson
from tundish.blobs import BlobChanged, BlobMissing, Blobs, BlobUnavailable
from tundish.errors import Refused
from tundish.file import File
from tundish.ids import to_text
from tundish.job import Code
from tundish.lineup import Known
from tundish.media import JSON
from tundish.outcome import Failed, Item
from tundish.plan import Plan
from tundish.store import ClaimedJob
from workers import transfers
from workers.claim import Claim
from workers.folders import DiskFull, Folder
from workers.load import Loaded
from workers.patience import Patience

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that can run on `loaded`: for each job, in order, its item and its input, or Failed where it has none;
    `folder` holds those that are files, and takes outputs that will be. It took so many `seconds`. `ahead` is what its
    model makes of it meanwhile, in another thread."""

    claim: Claim
    loaded: Loaded
    items: Sequence[Item]
    inputs: list[Any]
    folder: Folder | None
    seconds: float
    ahead: Future[Plan] | None = None

    def plan(self) -> Plan | None:
        """What was made ahead, which may have to be waited for; None where there is nothing."""
        if self.ahead is None or self.ahead.cancel():
            return None
        return None if self.ahead.exception() else self.ahead.result()


def prepare(
    loaded: Loaded, claim: Claim, blobs: Blobs, patience: Patience, *, timeout: float, max_body: int
) -> Prepared:
    """A predict may take the job's own time-out, else its model's, else `timeout` seconds. What no submit has seen is
    checked here: what lay at a URL, and what is over `max_body` bytes. Raises BlobUnavailable, and may be called again
    then, with the same `patience`."""
    began = time.monotonic()
    timeout = loaded.known.version.timeout or timeout
    try:
        folder = claim.folder or (loaded.folders.new() if loaded.folders else None)
    except DiskFull as error:
        folder = None
        claim = replace(claim, failed={job.id: _unavailable(job, error, str(error)) for job in claim.jobs})
    into = folder if loaded.reads.in_files else None
    missing: dict[int, Failed] = {}
    items: list[Item] = []
    for job, body in zip(claim.jobs, _bodies(claim, blobs, into, patience), strict=True):
        if isinstance(body, bytes) and (job.input_url or len(body) > max_body):
            body = _checked(loaded.known, body)
        if isinstance(body, Failed):
            missing[len(items)] = body
            body = b""
        items.append(Item(body, job.content_type, job.timeout or timeout))
    inputs = execute.decode(loaded.reads, items)
    for place, failed in missing.items():
        inputs[place] = failed
    return Prepared(claim, loaded, items, inputs, folder, time.monotonic() - began)


def _bodies(claim: Claim, blobs: Blobs, folder: Folder | None, patience: Patience) -> list[bytes | File | Failed]:
    """The input of each job, as a file where there is a folder for it; Failed where it has none."""
    found: dict[UUID, bytes | File | Failed] = dict(claim.failed)
    away = [job for job in claim.jobs if (job.blob is not None or folder) and job.id not in found]
    read = transfers.each(partial(_read, blobs=blobs, folder=folder, patience=patience), away, lambda job: job.size)
    found |= {job.id: body for job, body in zip(away, read, strict=True)}
    return [(found and found.get(job.id)) or job.body or b"" for job in claim.jobs]


def _read(job: ClaimedJob, blobs: Blobs, folder: Folder | None, patience: Patience) -> bytes | File | Failed:
    """An input that is not in the row, or shall be a file."""
    try:
        body = folder.fetch(job, blobs) if folder else blobs.get(job.blob or "", job.etag)
        patience.given(job.id)
        return body
    except BlobChanged as error:
        return _unavailable(job, error, "the upload was overwritten after the job was submitted; submit it again")
    except BlobMissing as error:
        return _unavailable(job, error, "the input is no longer in the blob store; submit it again")
    except BlobUnavailable as error:
        if not patience.ends(job.id, blobs, job.blob or ""):
            raise
        return _unavailable(job, error, "the blob store does not give the input; submit it again")
    except DiskFull as error:
        return _unavailable(job, error, str(error))
    except MemoryError:
        log.warning("an input of %d bytes does not fit into memory", job.size, extra={"job": to_text("job", job.id)})
        return Failed(Code.OUT_OF_MEMORY, f"the worker has no memory for an input of {job.size} bytes")


def _checked(known: Known, body: bytes) -> bytes | Failed:
    """As the API does at submit."""
    if known.version.input_type != JSON:
        return body
    try:
        known.check(strictjson.loads(body), "")
        return body
    except strictjson.InvalidJSON as error:
        return Failed(Code.INVALID_INPUT, f"the input is not JSON as it is taken here: {error}")
    except Refused as refused:
        return Failed(Code.INVALID_INPUT, refused.detail, refused.details)


def _unavailable(job: ClaimedJob, error: Exception, message: str) -> Failed:
    log.warning("a job has no input: %s", error, extra={"job": to_text("job", job.id)})
    return Failed(Code.INPUT_UNAVAILABLE, message)
