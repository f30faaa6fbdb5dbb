"""Predict: a claimed batch through its model on the device."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tundish import execute, store
from tundish.codec import Codec
from tundish.job import Code
from tundish.outcome import Canceled, Failed
from tundish.runtime import Runtime, Watch
from workers.claim import Claim
from workers.events import Events
from workers.folders import Folder
from workers.prepare import Prepared
from workers.report import Reporter
from workers.start import Start

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of a claim: an output a job, in order, or what stands for it (see execute.run), and what writes it.
    `predict_ms` is the time of the whole batch."""

    claim: Claim
    predict_ms: float
    results: Sequence[Any]
    writes: Codec
    folder: Folder | None = None

    @property
    def ran(self) -> bool:
        """Whether its time tells what a batch takes: something came of it."""
        return any(not isinstance(each, Failed | Canceled) for each in self.results)


def unloaded(prepared: Prepared, reason: str) -> Prediction:
    """The model cannot be brought to the device: the jobs fail, but for those that have failed for another reason."""
    failed = Failed(Code.MODEL_LOAD_FAILED, reason)
    results = [each if isinstance(each, Failed) else failed for each in prepared.inputs]
    return Prediction(prepared.claim, 0.0, results, prepared.loaded.writes, prepared.folder)


def predict(
    engine: store.Engine,
    kept: store.Kept,
    prepared: Prepared,
    watch: Watch,
    events: Events,
    device: str,
    *,
    quick: bool,
    lease: float,
    public_url: str,
) -> Prediction | None:
    """Mark the claim as started, and run it on the device; None where the claim was lost before. What is `quick` does
    not wait to hear which of its jobs have ended since they were claimed: they may run, and nothing comes of it. Raises
    execute.DeviceLost."""
    claim, loaded, plan = prepared.claim, prepared.loaded, None
    start = Start(engine, kept, prepared, lease, public_url)
    inputs = prepared.inputs if quick else start.of(prepared.inputs)
    if inputs is None:
        return None
    if prepared.ahead:
        with watch(min(item.timeout for item in prepared.items)):
            plan = prepared.plan()
    reporter = Reporter(engine, events, claim.jobs)
    began = time.monotonic()
    folder = prepared.folder.path if prepared.folder else None
    runtime = Runtime(device, loaded.ceilings, loaded.making, watch, folder)
    results = execute.run(loaded.model, prepared.items, inputs, reporter, runtime, plan)
    predict_ms = (time.monotonic() - began) * 1000
    log.debug("%d jobs in %.1f ms", len(results), predict_ms, extra={"claim": str(claim.id)})
    left = start.after(results) if quick else results
    return None if left is None else Prediction(claim, predict_ms, left, loaded.writes, prepared.folder)
