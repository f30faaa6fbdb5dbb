"""Record: blobs first, then one fenced statement for all that has gathered, with the webhook rows."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from uuid import UUID

from tundish import execute, outbox, store
from tundish.blobs import Blobs, key
from tundish.ids import to_text
from tundish.job import Code, Status, error_json
from workers.predict import Prediction

log = logging.getLogger(__name__)


def record(
    engine: store.Engine,
    single: store.Engine,
    blobs: Blobs,
    worker: UUID,
    predictions: Sequence[Prediction],
    *,
    inline_max: int,
    public_url: str,
) -> list[UUID]:
    """Write the ends of all jobs of `predictions` in one transaction. The ids whose end was accepted: a result that
    comes after its lease ran out counts only if nobody else has claimed the job. Raises BlobUnavailable and StoreError:
    nothing is written then, and the same call may be made again."""
    finished = [end for each in predictions for end in _ends(each, blobs, worker, inline_max)]
    hooked = {job.id: job.tenant for each in predictions for job in each.claim.jobs if job.webhook}
    claims = [each.claim.id for each in predictions]

    def write(ends: Sequence[store.Finished], close: Sequence[UUID]) -> set[UUID]:
        with (engine if hooked else single).begin() as connection:
            done = store.record(connection, ends, close)
            outbox.announce(connection, [(id, hooked[id]) for id in done if id in hooked], public_url)
        return done

    try:
        done = write(finished, claims)
    except store.RowError:
        done = _one_by_one(finished, claims, write)
    if len(done) < len(finished):
        log.info("%d results came too late and were dropped", len(finished) - len(done))
    return list(done)


def _one_by_one(
    finished: Sequence[store.Finished],
    claims: Sequence[UUID],
    write: Callable[[Sequence[store.Finished], Sequence[UUID]], set[UUID]],
) -> set[UUID]:
    """Postgres does not take one of the ends for what is in it: that job fails, the others end as they did."""
    done: set[UUID] = set()
    for end in finished:
        close = claims if end is finished[-1] else []
        try:
            done |= write([end], close)
        except store.RowError as error:
            log.error("an output cannot be stored: %s", error.orig, extra={"job": to_text("job", end.id)})
            fault = error_json(Code.OUTPUT_INVALID, f"the output cannot be stored: {error.orig}")
            refused = replace(end, status=Status.FAILED, content_type=None, size=None, body=None, blob=None)
            done |= write([replace(refused, error=fault)], close)
    return done


def _ends(prediction: Prediction, blobs: Blobs, worker: UUID, inline_max: int) -> Iterator[store.Finished]:
    size = len(prediction.claim.jobs)
    for job, outcome in zip(prediction.claim.jobs, prediction.outcomes, strict=True):
        kept = None if isinstance(outcome, execute.Canceled) else _keep(job, outcome, blobs, inline_max)
        yield store.Finished(
            id=job.id,
            tenant=job.tenant,
            attempt=job.attempt,
            finished_at=prediction.finished_at,
            started_at=prediction.started_at,
            predict_ms=prediction.predict_ms,
            batch_size=size,
            worker=worker,
            status=_status(outcome),
            content_type=kept.content_type if isinstance(kept, store.Payload) else None,
            size=kept.size if isinstance(kept, store.Payload) else None,
            body=kept.body if isinstance(kept, store.Payload) else None,
            blob=kept.blob if isinstance(kept, store.Payload) else None,
            error=kept if isinstance(kept, bytes) else None,
        )


def _status(outcome: execute.Outcome) -> Status:
    match outcome:
        case execute.Done():
            return Status.SUCCEEDED
        case execute.Failed():
            return Status.FAILED
        case execute.Canceled():
            return Status.CANCELED


def _keep(
    job: store.ClaimedJob, outcome: execute.Done | execute.Failed, blobs: Blobs, inline_max: int
) -> store.Payload | bytes:
    """The output where it shall lie, or the error as JSON."""
    if isinstance(outcome, execute.Failed):
        return error_json(outcome.code, outcome.message, outcome.details)
    if len(outcome.body) <= inline_max:
        return store.Payload(outcome.content_type, len(outcome.body), outcome.body, None)
    name = key(job.tenant, job.id, job.attempt, "output")
    blobs.put(name, outcome.body, outcome.content_type)
    return store.Payload(outcome.content_type, len(outcome.body), None, name)
