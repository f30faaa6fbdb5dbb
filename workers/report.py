"""Report: what a running batch says of its items goes to who follows their jobs, and it learns who has cancelled."""

import logging
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tundish import store
from tundish.events import Kind, Unfit, fraction_of, log_data, piece_data
from tundish.ids import to_text
from workers.events import Events, Said

log = logging.getLogger(__name__)

#: Seconds between two looks at whether a running job's caller has cancelled it.
LOOK = 1.0


class Reporter:
    """What a running batch says of its items, and asks. Nothing that it says may fail it."""

    def __init__(self, engine: store.Engine, events: Events, jobs: Sequence[store.ClaimedJob]) -> None:
        self._engine = engine
        self._events = events
        self._jobs = jobs
        self._said: dict[int, Said] = {}
        self._told = False  # that something cannot be sent
        self._canceled: set[UUID] = set()
        self._look_at = time.monotonic() + LOOK

    def progress(self, index: int, fraction: float) -> None:
        said = self._of(index)
        try:
            said.progress = fraction_of(fraction)
        except Unfit as unfit:
            self._warn(index, unfit)
        else:
            self._events.put(said, Kind.PROGRESS)

    def emit(self, index: int, piece: Any) -> None:
        said = self._of(index)
        try:
            data = piece_data(piece, said.attempt, said.run)
        except Unfit as unfit:
            self._warn(index, unfit)
        else:
            self._events.put(said, Kind.OUTPUT, data)

    def log(self, index: int, text: str) -> None:
        log.info("%s", text, extra={"job": to_text("job", self._jobs[index].id)})
        self._events.put(self._of(index), Kind.LOG, log_data(text))

    def again(self, indexes: Sequence[int]) -> None:
        for index in indexes:
            if index in self._said:
                self._said[index].run += 1

    def _of(self, index: int) -> Said:
        if index not in self._said:
            job = self._jobs[index]
            self._said[index] = Said(job.id, job.attempt)
        return self._said[index]

    def _warn(self, index: int, unfit: Unfit) -> None:
        """Once a batch: a model that errs once errs at each letter."""
        if not self._told:
            self._told = True
            log.error("not sent to who follows the job: %s", unfit, extra={"job": to_text("job", self._jobs[index].id)})

    def canceled(self, index: int) -> bool:
        """As Postgres had it a second ago at most; a model may ask as often as it likes."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK
            try:
                with store.autocommit(self._engine).connect() as connection:
                    self._canceled = store.to_cancel(connection, [job.id for job in self._jobs])
            except store.StoreError as error:
                log.warning("cannot ask who cancelled: %s", error)
        return self._jobs[index].id in self._canceled
