"""Supply: each claim gets its inputs, and is prepared once it has them: at once, or later, beside all else."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from tundish.ids import new_uuid
from workers.batch import Target
from workers.claim import Claim, Custody
from workers.folders import Folders
from workers.inputs import Fetcher
from workers.intake import Intake
from workers.persist import Persist
from workers.waits import Waits

#: What may have to wait, as the log says it.
PARTING = "parting a claim"
#: Seconds for which what had to be waited for is claimed one batch at a time: only so many claims of a target may wait.
WAITED = 60.0


class Supply:
    """`folders` tells where the inputs of a claim go as files, None where they are read into memory; `prepare` takes
    what has its inputs; `beside` runs a verb in a thread of its own, which nobody waits for. Ends once `closing`."""

    def __init__(
        self,
        fetcher: Fetcher,
        custody: Custody,
        intake: Intake,
        persist: Persist,
        closing: threading.Event,
        *,
        folders: Callable[[Claim], Folders | None],
        prepare: Callable[[Claim], None],
        beside: Callable[[Callable[[Claim], None], Claim], None],
    ) -> None:
        self._fetcher = fetcher
        self._custody = custody
        self._intake = intake
        self._persist = persist
        self._closing = closing
        self._folders = folders
        self._prepare = prepare
        self._beside = beside
        self._waits = Waits()

    @property
    def waits(self) -> bool:
        """Whether any claim waits for its inputs."""
        return self._waits.some

    def now(self, claimed: Claim) -> bool:
        """False where its inputs have to be waited for."""
        ready = self._fetcher.ready(claimed, self._folders(claimed))
        if ready:
            self._prepare(ready)
        return ready is not None

    def later(self, claimed: Claim) -> None:
        """Get its inputs beside all else. Where as many claims of its model wait as may, what needs no waiting goes on
        alone, as a claim of its own; the rest goes back to its queue, and is sent again by a sweep within a minute."""
        self._intake.single(claimed.target, time.monotonic() + WAITED)
        claimed = replace(claimed, more=False)
        if self._waits.begin(claimed.target):
            self._hold_back(claimed.target)
            self._beside(self._fetch, claimed)  # what is still being fetched at the end is given back
            return
        given_back = [claimed.id]
        here = [job for job in claimed.jobs if not job.input_url]
        if 0 < len(here) < len(claimed.jobs):
            part = replace(claimed, id=new_uuid(), jobs=here)
            self._persist(PARTING, self._custody.part, claimed, part)
            if not self.now(part):
                given_back.append(part.id)
        self._custody.give_back(given_back, again=False)

    def _fetch(self, claimed: Claim) -> None:
        for part in self._fetcher.parts(claimed, self._closing, self._folders(claimed)):
            if part.id != claimed.id:
                self._persist(PARTING, self._custody.part, claimed, part)
            self._prepare(part)
            del part  # it is large, and the next one may take long
        self._waits.end(claimed.target)
        self._hold_back(claimed.target)

    def _hold_back(self, target: Target) -> None:
        self._intake.hold_back(target, self._waits.until(target, time.monotonic()))
