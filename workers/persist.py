"""Persist: what Postgres or the blob store does not take is tried again, until they do or there is no time left."""

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tundish import logs, store
from tundish.blobs import BlobUnavailable

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds between tries.
RETRY = 1.0


class Persist:
    """Calls verbs until `end` is set. `outage` hears what has to wait."""

    def __init__(self, end: threading.Event, outage: logs.Outage) -> None:
        self._end = end
        self._outage = outage

    def __call__(self, what: str, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What `verb` gives once it is done; None where the end comes first. `what` it does is told where it has to
        wait: "claiming a batch"."""
        while True:
            try:
                done = verb(*args, **kwargs)
            except (store.StoreError, BlobUnavailable) as error:
                self._outage.waits(what, error)
                if self._end.wait(RETRY):
                    return None
            else:
                self._outage.over(what)
                return done
