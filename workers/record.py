"""Finish and record: outputs are encoded, large ones go into blobs; then one fenced statement writes all that has
gathered, with the webhook rows."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from tundish import execute, outbox, store
from tundish.blobs import BlobOversized, Blobs, key
from tundish.file import File
from tundish.ids import to_text
from tundish.job import Code, Status, error_json
from tundish.outcome import Done, Failed, Outcome, size_of
from workers import transfers
from workers.predict import Prediction

log = logging.getLogger(__name__)

#: Tenants whose endpoints heard of the last ends. A hint, which spares them a statement that would write nothing.
_heard: set[int] = set()


@dataclass(frozen=True, slots=True)
class Recorded:
    """The jobs whose end was accepted, and whether `webhooks` may have been written with them: a job came with one, or
    its tenant has an endpoint."""

    ids: list[UUID]
    webhooks: bool


def finish(predictions: Sequence[Prediction], blobs: Blobs, *, inline_max: int) -> list[store.Finished]:
    """The ends of all jobs of `predictions`, in their order; outputs over `inline_max` bytes, and files, lie in their
    blobs. Raises BlobUnavailable: the same call may be made again, until `record` has been called with what it gave.
    From then on that may be accepted, and never changes: encoded anew, an output may be another."""
    return [end for each in predictions for end in _ends(each, blobs, inline_max)]


def record(
    kept: store.Kept,
    engine: store.Engine,
    predictions: Sequence[Prediction],
    finished: Sequence[store.Finished],
    *,
    public_url: str,
) -> Recorded:
    """Write the ends of all jobs of `predictions` in one transaction, by `kept` where one statement does. A
    result that comes after its lease ran out counts only if nobody else has claimed the job. Raises StoreError: nothing
    is written then, or its answer was lost, and the same call may be made again."""
    jobs = [job for each in predictions for job in each.claim.jobs]
    urls = {job.id: job.webhook for job in jobs if job.webhook}
    tenants = {job.tenant for job in jobs}
    ran = [store.Ran(each.claim.id, each.predict_ms) for each in predictions]

    def write(ends: Sequence[store.Finished], close: bool) -> Recorded:
        # Without a webhook it is one statement, which writes nothing where an endpoint of the tenants is to hear of it.
        quiet = not urls and _heard.isdisjoint(tenants)
        if quiet and (done := store.record(kept(), ends, ran, close=close, unheard_by=tenants)):
            return Recorded(done, webhooks=False)
        with engine.begin() as connection:
            done = store.record(connection, ends, ran, close=close)
            tenant_of = {job.id: job.tenant for job in jobs}
            ended = [(id, tenant_of[id]) for id in done]
            heard = outbox.announce(connection, ended, public_url, urls)
        _heard.difference_update(tenants)
        _heard.update(heard)
        return Recorded(done, webhooks=bool(urls or heard))

    try:
        recorded = write(finished, True)
    except store.RowError:
        recorded = _one_by_one(finished, write)
    if late := len(finished) - len(recorded.ids):
        log.info("%d results were not taken: they came too late, or by a first try whose answer was lost", late)
    for each in predictions:
        if each.folder:
            each.folder.remove()
    return recorded


def _one_by_one(
    finished: Sequence[store.Finished], write: Callable[[Sequence[store.Finished], bool], Recorded]
) -> Recorded:
    """Postgres does not take one of the ends for what is in it: that job fails, the others end as they did."""
    parts: list[Recorded] = []
    for end in finished:
        last = end is finished[-1]
        try:
            parts.append(write([end], last))
        except store.RowError as error:
            parts.append(write([_unstored(end, str(error.orig))], last))
    return Recorded([id for part in parts for id in part.ids], any(part.webhooks for part in parts))


def _ends(prediction: Prediction, blobs: Blobs, inline_max: int) -> list[store.Finished]:
    outcomes = execute.encode(prediction.writes, prediction.results)
    ended = list(zip(prediction.claim.jobs, outcomes, strict=True))
    ends = [_inline(job, outcome, inline_max) for job, outcome in ended]
    away = [
        (job, outcome)
        for (job, outcome), end in zip(ended, ends, strict=True)
        if end is None and isinstance(outcome, Done)
    ]

    def put(of: tuple[store.ClaimedJob, Done]) -> store.Finished:
        return _put(*of, blobs, inline_max)

    stored = iter(transfers.each(put, away, lambda of: size_of(of[1].body)))
    return [end or next(stored) for end in ends]


def _inline(job: store.ClaimedJob, outcome: Outcome, inline_max: int) -> store.Finished | None:
    """An end that goes into a row; None where its output does not, or is a file."""
    if isinstance(outcome, Done):
        body, content_type = outcome
        if isinstance(body, File) or len(body) > inline_max:
            return None
        return store.Finished(job.id, job.attempt, Status.SUCCEEDED, content_type, body)
    if isinstance(outcome, Failed):
        fault = error_json(outcome.code, outcome.message, outcome.details)
        return store.Finished(job.id, job.attempt, Status.FAILED, error=fault)
    return store.Finished(job.id, job.attempt, Status.CANCELED)


def _put(job: store.ClaimedJob, done: Done, blobs: Blobs, inline_max: int) -> store.Finished:
    """The end of a job whose output goes to its blob."""
    body, content_type = done
    if isinstance(body, File):
        return _of_file(job, body, content_type, blobs, inline_max)
    name = key(job.tenant, job.id, job.attempt, "output")
    try:
        blobs.put(name, body, content_type)
    except BlobOversized as error:
        return _unstored(job, str(error))
    return store.Finished(job.id, job.attempt, Status.SUCCEEDED, content_type, blob=name, size=len(body))


def _of_file(job: store.ClaimedJob, output: File, content_type: str, blobs: Blobs, inline_max: int) -> store.Finished:
    """The end of a job whose output is a file: it goes from the disk to its blob."""
    ended = store.Finished(job.id, job.attempt, Status.SUCCEEDED, content_type)
    try:
        with output.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= inline_max:
                return ended._replace(body=file.read())
            name = key(job.tenant, job.id, job.attempt, "output")
            blobs.put_file(name, file, content_type)
            return ended._replace(blob=name, size=size)
    except BlobOversized as error:
        return _unstored(job, str(error))
    except OSError as error:
        fault = error_json(Code.OUTPUT_INVALID, f"the output's file cannot be read: {error.strerror or error}")
        return store.Finished(job.id, job.attempt, Status.FAILED, error=fault)


def _unstored(of: store.ClaimedJob | store.Finished, why: str) -> store.Finished:
    log.error("an output cannot be stored: %s", why, extra={"job": to_text("job", of.id)})
    fault = error_json(Code.OUTPUT_INVALID, f"the output cannot be stored: {why}")
    return store.Finished(of.id, of.attempt, Status.FAILED, error=fault)
