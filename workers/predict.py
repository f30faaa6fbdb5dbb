"""Predict: a claimed batch through its model on the device."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tundish import execute, store
from tundish.codec import Codec
from workers.batch import Target
from workers.claim import Claim
from workers.load import Loaded
from workers.prepare import Prepared

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of a claim: an output a job, in order, or what stands for it (see execute.run), and what writes it.
    `predict_ms` is the time of the whole batch."""

    claim: Claim
    predict_ms: float
    results: Sequence[Any]
    writes: Codec


#: Seconds between two looks at whether a running job's caller has cancelled it.
LOOK = 1.0


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
    engine: store.Engine, models: Mapping[Target, Loaded], prepared: Prepared, watch: execute.Watch, *, lease: float
) -> Prediction | None:
    """Mark the claim as started, and run it; None where the claim was lost before. Raises execute.DeviceLost."""
    claim = prepared.claim
    with engine.connect() as connection:
        dropped = store.start(connection, claim.id, lease=lease)
    if dropped is None:
        log.warning("a claim ran out before its batch started", extra={"batch": str(claim.id)})
        return None
    loaded, inputs = models[claim.target], prepared.inputs
    if dropped:
        inputs = [
            execute.Canceled() if job.id in dropped else input for job, input in zip(claim.jobs, inputs, strict=True)
        ]
    reporter = Reporter(engine, [job.id for job in claim.jobs])
    began = time.monotonic()
    results = execute.run(loaded.model, prepared.items, inputs, reporter, watch, loaded.ceilings)
    predict_ms = (time.monotonic() - began) * 1000
    log.debug("%d jobs in %.1f ms", len(results), predict_ms, extra={"batch": str(claim.id)})
    return Prediction(claim, predict_ms, results, loaded.writes)
