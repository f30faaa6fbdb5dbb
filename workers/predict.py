"""Predict: a claimed batch through its model on the device."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tundish import execute, store
from tundish.blobs import Blobs
from tundish.codec import Codec
from tundish.job import Code
from tundish.model import Model
from workers import claim as claims
from workers.batch import Target
from workers.claim import Claim

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on the device, with what decodes its inputs and encodes its outputs, and what the catalog says of it."""

    model: Model[Any, Any]
    reads: Codec
    writes: Codec
    version: store.Version


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of a claim, in the order of its jobs; `predict_ms` is the time of the whole batch."""

    claim: Claim
    started_at: datetime
    finished_at: datetime
    predict_ms: float
    outcomes: list[execute.Done | execute.Failed]


_GONE = execute.Failed(Code.INPUT_UNAVAILABLE, "the input is no longer in the blob store; submit it again", None)


@dataclass(slots=True)
class Reporter:
    """Progress, pieces and logs of a running batch go nowhere yet: no stream of events is served."""

    canceled_jobs: set[int] = field(default_factory=set)

    def progress(self, index: int, fraction: float) -> None:
        log.debug("progress of item %d: %s", index, fraction)

    def emit(self, index: int, piece: Any) -> None:
        log.debug("piece of item %d", index)

    def log(self, index: int, text: str) -> None:
        log.info("item %d: %s", index, text)

    def canceled(self, index: int) -> bool:
        return index in self.canceled_jobs


def predict(
    engine: store.Engine, models: Mapping[Target, Loaded], claim: Claim, blobs: Blobs, *, lease: float
) -> Prediction | None:
    """Mark the claim as started, run it, and keep the outcome of each job; None where the claim was lost before."""
    inputs = claims.inputs(claim, blobs)
    with engine.connect() as connection:
        started_at = store.start(connection, claim.id, lease=lease)
    if started_at is None:
        log.warning("a claim ran out before its batch started", extra={"batch": str(claim.id)})
        return None
    began = time.monotonic()
    outcomes = _run(models[claim.target], claim, inputs)
    predict_ms = (time.monotonic() - began) * 1000
    log.debug("%d jobs in %.1f ms", len(outcomes), predict_ms, extra={"batch": str(claim.id)})
    # The database's clock, carried on by this machine's.
    finished_at = started_at + timedelta(milliseconds=predict_ms)
    return Prediction(claim, started_at, finished_at, predict_ms, outcomes)


def _run(loaded: Loaded, claim: Claim, inputs: list[bytes | None]) -> list[execute.Done | execute.Failed]:
    items = {
        index: execute.Item(body, job.content_type)
        for index, (job, body) in enumerate(zip(claim.jobs, inputs, strict=True))
        if body is not None
    }
    ran = execute.execute(loaded.model, loaded.reads, loaded.writes, list(items.values()), Reporter()) if items else []
    outcomes: list[execute.Done | execute.Failed] = [_GONE] * len(inputs)
    for index, outcome in zip(items, ran, strict=True):
        outcomes[index] = outcome
    return outcomes
