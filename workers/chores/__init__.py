"""What keeps the system tidy: one file a chore, each with its `EVERY` (seconds) and a `run`.

Any number of processes may run them: each sweep holds an advisory lock while it works, survey and expire the same one,
for both move the marks; and a batch that is worked on is leased.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import redis

from tundish import store
from tundish.blobs import Blobs
from tundish.settings import Settings
from workers.patience import Patience


@dataclass(frozen=True, slots=True)
class Tools:
    """What a chore works with; once `stopped`, it shall come to an end soon."""

    settings: Settings
    engine: store.Engine
    client: redis.Redis
    blobs: Blobs
    stopped: threading.Event = field(default_factory=threading.Event)
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Chore:
    """`run` does its work in pages, or all that is due, and says how many it moved; it is called again soon where it
    moved anything."""

    name: str
    every: float
    run: Callable[[Tools], int]
