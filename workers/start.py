"""Start: from here on a claim's jobs run, and are charged with a death where it comes to that."""

import logging
from typing import Any
from uuid import UUID

from tundish import store
from tundish.outbox import announce_start
from tundish.outcome import Canceled, Failed
from workers.prepare import Prepared

log = logging.getLogger(__name__)


class Start:
    """The start of a claim. It is sent to Postgres as this is made, and so charges a job that ends the process at once;
    what Postgres answers may be heard later."""

    def __init__(
        self, engine: store.Engine, kept: store.Kept, prepared: Prepared, lease: float, public_url: str
    ) -> None:
        self._engine = engine
        self._prepared = prepared
        self._public_url = public_url
        self._answer = None if prepared.claim.begun else store.start(kept(), prepared.claim.id, lease=lease)

    def of(self, values: list[Any]) -> list[Any] | None:
        """What there is for each job, with Canceled for those that have ended since they were claimed; None where the
        claim was lost. Raises StoreError."""
        if self._answer is None:
            return values
        started, claim = self._answer(), self._prepared.claim
        if started is None:
            log.warning("a claim ran out before its batch started", extra={"claim": str(claim.id)})
            return None
        if started.heard:
            self._announce(started.dropped)
        if not started.dropped:
            return values
        of_jobs = zip(claim.jobs, values, strict=True)
        return [Canceled() if job.id in started.dropped else value for job, value in of_jobs]

    def after(self, results: list[Any]) -> list[Any] | None:
        """The same for what has run, which nobody shall run again: where the answer is lost, the fence of each attempt
        tells which results count."""
        try:
            return self.of(results)
        except store.StoreError as error:
            log.warning("whether a batch was still ours as it started is not known: %s", error)
            return results

    def _announce(self, dropped: set[UUID]) -> None:
        """Of jobs that have no input nobody hears that they started."""
        inputs = zip(self._prepared.claim.jobs, self._prepared.inputs, strict=True)
        run = [job for job, input in inputs if not isinstance(input, Failed) and job.id not in dropped]
        told = {(job.id, job.tenant): job.attempt for job in run}
        with self._engine.begin() as connection:
            announce_start(connection, told, self._public_url)
