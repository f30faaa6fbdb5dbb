"""Claim: a batch's jobs become this worker's, under one lease, and their inputs arrive with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from tundish import execute, store
from tundish.ids import new_uuid
from workers.batch import Draft, Target
from workers.folders import Folder
from workers.room import Hold


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch in this worker's hands; `failed` are those of its jobs whose input cannot be had, and why. `begun`: it
    has started as it was claimed. `folder` has the inputs that were fetched as files, `hold` is the room of those that
    lie in memory until they are predicted."""

    id: UUID
    target: Target
    jobs: Sequence[store.ClaimedJob]
    failed: Mapping[UUID, execute.Failed] = field(default_factory=dict)
    begun: bool = False
    folder: Folder | None = None
    hold: Hold | None = None

    def without_bodies(self) -> "Claim":
        """What is left once it was predicted."""
        return replace(self, jobs=[job._replace(body=None) for job in self.jobs], hold=None)


def claim(
    engine: store.Engine, worker: UUID, draft: Draft, *, lease: float, max_attempts: int, begin: bool
) -> Claim | None:
    """Take what is still queued of a draft, and `begin` where predict follows at once; None where nothing is: another
    worker has it, or it was a duplicate."""
    id = new_uuid()
    with engine.connect() as connection:
        claimed = store.claim(connection, id, worker, draft.ids, lease=lease, max_attempts=max_attempts, begin=begin)
    return Claim(id, draft.target, claimed.jobs, begun=claimed.begun) if claimed else None


def split(engine: store.Engine, claim: UUID, part: Claim) -> None:
    """Let `part`, some of the jobs of a claim, be a claim of their own."""
    with engine.connect() as connection:
        store.part(connection, claim, part.id, [job.id for job in part.jobs])
