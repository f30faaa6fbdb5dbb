"""How many workers a pool should have: pure. The same policy answers `/v1/pools` and is replayed by `scale-sim`."""

import math
from dataclasses import dataclass

#: Seconds of quiet after which a pool needs no worker at all.
QUIET = 300.0
#: Seconds over which the rate of arrivals is taken.
RATE = 60.0
#: The part of a worker's time that is planned for: the rest absorbs what comes unevenly.
UTILISATION = 0.8
#: The part of the target wait that a backlog gets at least, to be worked off in: one that is late already is hurried.
HURRY = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool has to do. `awake`: a job arrived within QUIET seconds, or runs. `job_s` is what one job takes of a
    device, in seconds, batched as it was lately; None where none was measured."""

    backlog: int
    oldest_age_s: float
    arrival_per_s: float
    awake: bool
    job_s: float | None
    replicas: int


@dataclass(frozen=True, slots=True)
class Policy:
    """`target_wait`: seconds that a job should wait for its start at most."""

    target_wait: float = 30.0
    least: int = 0
    most: int = 1000


def suggested(load: Load, policy: Policy) -> int:
    """The replicas that keep up with what arrives and start what waits within the target. None are wanted where nothing
    waits, runs or has arrived lately; one at least where something does."""
    if not (load.backlog or load.awake):
        return policy.least
    wanted = load.replicas
    if load.job_s is not None:
        left = max(policy.target_wait - load.oldest_age_s, policy.target_wait * HURRY)
        # Device-seconds to be done in each second.
        work = (load.arrival_per_s + load.backlog / left) * load.job_s
        wanted = math.ceil(round(work / UTILISATION, 9))  # what floats add is no replica
    return min(max(wanted, 1, policy.least), policy.most)
