"""Predict: a claimed batch through its model on the device."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

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
    ceilings: execute.Ceilings = field(default_factory=execute.Ceilings)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of a claim, in the order of its jobs; `predict_ms` is the time of the whole batch."""

    claim: Claim
    predict_ms: float
    outcomes: list[execute.Outcome]


#: Seconds between two looks at whether a running job's caller has cancelled it.
LOOK = 1.0

_GONE = execute.Failed(Code.INPUT_UNAVAILABLE, "the input is no longer in the blob store; submit it again", None)


class Reporter:
    """What a running batch says of its items, and asks. Progress, pieces and logs go nowhere yet: no stream of events
    is served."""

    def __init__(self, engine: store.Engine, ids: Sequence[UUID]) -> None:
        self._engine = engine
        self._ids = ids
        self._canceled: set[UUID] = set()
        self._look_at = time.monotonic() + LOOK

    def progress(self, index: int, fraction: float) -> None:
        log.debug("progress of item %d: %s", index, fraction)

    def emit(self, index: int, piece: Any) -> None:
        log.debug("piece of item %d", index)

    def log(self, index: int, text: str) -> None:
        log.info("item %d: %s", index, text)

    def canceled(self, index: int) -> bool:
        """As Postgres had it a second ago at most; a model may ask as often as it likes."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK
            try:
                with self._engine.connect() as connection:
                    self._canceled = store.to_cancel(connection, self._ids)
            except store.StoreError as error:
                log.warning("cannot ask who cancelled: %s", error)
        return self._ids[index] in self._canceled


def predict(
    engine: store.Engine,
    models: Mapping[Target, Loaded],
    claim: Claim,
    blobs: Blobs,
    watch: execute.Watch,
    *,
    lease: float,
    timeout: float,
) -> Prediction | None:
    """Mark the claim as started, run it, and keep the outcome of each job; None where the claim was lost before.
    A predict may take the job's own time-out, else its model's, else `timeout` seconds. Raises execute.DeviceLost."""
    inputs = claims.inputs(claim, blobs)
    with engine.connect() as connection:
        dropped = store.start(connection, claim.id, lease=lease)
    if dropped is None:
        log.warning("a claim ran out before its batch started", extra={"batch": str(claim.id)})
        return None
    began = time.monotonic()
    outcomes = _run(engine, models[claim.target], claim, inputs, dropped, watch, timeout)
    predict_ms = (time.monotonic() - began) * 1000
    log.debug("%d jobs in %.1f ms", len(outcomes), predict_ms, extra={"batch": str(claim.id)})
    return Prediction(claim, predict_ms, outcomes)


def _run(
    engine: store.Engine,
    loaded: Loaded,
    claim: Claim,
    inputs: list[bytes | None],
    dropped: set[UUID],
    watch: execute.Watch,
    timeout: float,
) -> list[execute.Outcome]:
    timeout = loaded.version.timeout or timeout
    # What is not run keeps the outcome that it has here.
    outcomes: list[execute.Outcome] = [execute.Canceled() if job.id in dropped else _GONE for job in claim.jobs]
    there = [index for index, body in enumerate(inputs) if body is not None and claim.jobs[index].id not in dropped]
    jobs = [claim.jobs[index] for index in there]
    items = [
        execute.Item(inputs[index] or b"", job.content_type, job.timeout or timeout)
        for index, job in zip(there, jobs, strict=True)
    ]
    reporter = Reporter(engine, [job.id for job in jobs])
    ran = execute.execute(loaded.model, loaded.reads, loaded.writes, items, reporter, watch, loaded.ceilings)
    for index, outcome in zip(there, ran, strict=True):
        outcomes[index] = outcome
    return outcomes
