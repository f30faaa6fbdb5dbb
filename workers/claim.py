"""Claim: a batch's jobs become this worker's, under one lease, and their inputs arrive with them."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import redis

from tundish import store
from tundish.ids import new_uuid
from tundish.outbox import announce
from tundish.outcome import Failed
from tundish.settings import Settings
from workers.batch import Draft, Target
from workers.folders import Folder
from workers.notify import notify
from workers.resend import resend
from workers.room import Hold

log = logging.getLogger(__name__)

#: Seconds between two looks for claims whose answer was lost.
LOOK = 0.5


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch in this worker's hands; `failed` are those of its jobs whose input cannot be had, and why. `begun`: it
    has started as it was claimed; `more`: others were claimed with it, and follow. `folder` has the inputs that were
    fetched as files, `hold` is the room of those that lie in memory until they are predicted."""

    id: UUID
    target: Target
    jobs: Sequence[store.ClaimedJob]
    failed: Mapping[UUID, Failed] = field(default_factory=dict)
    begun: bool = False
    more: bool = False
    folder: Folder | None = None
    hold: Hold | None = None

    def without_bodies(self) -> "Claim":
        """What is left once it was predicted."""
        return replace(self, jobs=[job._replace(body=None) for job in self.jobs], hold=None)


class Custody:
    """The claims in this worker's hands."""

    def __init__(
        self, worker: UUID, settings: Settings, engine: store.Engine, kept: store.Kept, client: redis.Redis
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._engine = engine
        self._kept = kept
        self._client = client
        self._unsure: dict[UUID, float] = {}  # claims whose answer was lost, and until when Postgres may make them ours
        self._looked = -LOOK
        self._held: dict[UUID, bool] = {}  # whether their job is on its last attempt

    def take(self, drafts: Sequence[Draft], *, begin: bool) -> list[Claim]:
        """Take what is still queued of drafts, and `begin` the first where predict follows at once. No claim comes of
        one that nothing is left of: another worker has it, or it was a duplicate. Raises StoreError, and may be called
        again then."""
        now = time.monotonic()
        self._unsure = {id: until for id, until in self._unsure.items() if until > now}
        if self._unsure and now >= self._looked + LOOK:
            self._looked = now
            self._release(list(self._unsure))
        wanted = {new_uuid(): draft for draft in drafts}
        self._unsure |= dict.fromkeys(wanted, now + self._settings.lease)
        taken = store.claim(
            self._kept(),
            {id: draft.ids for id, draft in wanted.items()},
            self._worker,
            lease=self._settings.lease,
            max_attempts=self._settings.max_attempts,
            begin=next(iter(wanted)) if begin else None,
        )
        self._held |= {id: self.last(each.jobs) for id, each in taken.items()}
        for id in wanted:
            del self._unsure[id]
        # A claim may be made long after its answer was given up, as by a slow disk. Who gets less has waited for it.
        if self._unsure and len(taken) < len(wanted):
            self.give_back(list(self._unsure))
        hindmost = next(reversed(taken), None)
        return [
            # Nothing runs before the end of a job on its last attempt is recorded.
            Claim(id, wanted[id].target, each.jobs, begun=each.begun, more=id != hindmost and not self.last(each.jobs))
            for id, each in taken.items()
        ]

    def last(self, jobs: Sequence[store.ClaimedJob]) -> bool:
        """Whether it is the last attempt of a job, which then is alone."""
        return jobs[0].deaths >= self._settings.max_attempts - 1

    @property
    def held(self) -> set[UUID]:
        """Until what came of them is recorded, or they are given back. Other threads add and remove."""
        return set(self._held)

    @property
    def lone(self) -> bool:
        """Whether a job is in hand that is on its last attempt: no code of a model runs beside it."""
        return any(list(self._held.values()))

    def part(self, claim: Claim, part: Claim) -> None:
        """Let `part`, some of the jobs of a claim, be a claim of its own. Raises StoreError, and may be called again
        then; it may be held all the same."""
        self._held[part.id] = False
        with self._engine.begin() as connection:
            store.part(connection, claim.id, part.id, [job.id for job in part.jobs])

    def let_go(self, claims: Iterable[UUID]) -> None:
        """They are no longer ours: recorded, or lost."""
        for claim in claims:
            self._held.pop(claim, None)

    def give_back(self, claims: Sequence[UUID], *, again: bool = True) -> None:
        """To the queue, and no death is charged: sent `again` at once, or by a sweep. Where Postgres does not
        answer they are free once their lease has run out."""
        self.let_go(claims)
        try:
            self._release(claims, again)
        except store.StoreError as error:
            log.warning("what is given back is free once its lease has run out: %s", error)

    def end(self) -> None:
        """Give back all that is held."""
        if held := [*self._held, *self._unsure]:
            self.give_back(held)

    def put_back(self, ids: Sequence[str]) -> None:
        """To the queue, what was fetched from it and is not claimed. Where Postgres does not answer, the sweep sends it
        again."""
        try:
            with self._engine.begin() as connection:
                self._resend(store.waiting(connection, ids))
        except store.StoreError as error:
            log.warning("what was fetched waits for the next sweep: %s", error)

    def _release(self, claims: Sequence[UUID], again: bool = True) -> None:
        with self._engine.begin() as connection:
            given_back = store.release(connection, claims)
            announce(connection, given_back.ended, self._settings.public_url)
        notify(self._client, [id for id, _ in given_back.ended])
        if again:
            self._resend(given_back.unsent)
        if given_back.unsent:
            log.info("gave back %d jobs", len(given_back.unsent))

    def _resend(self, jobs: Sequence[store.Unsent]) -> None:
        resend(self._client, jobs, self._settings.max_attempts)
