"""How long a request waits for one of the loops behind the routes, and for the store of blobs."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from tundish.blobs import BlobUnavailable
from tundish.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds: with what goes before and after, every call is answered within 10 s.
PATIENCE = 8.0

#: What a store that stalls keeps for minutes are threads that nothing else needs.
_blobs = ThreadPoolExecutor(64, "blobs")


class Patience:
    """That of the callers of one loop: a timer for all of them, as one for each took 1 % of a status answer."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def answered(self, future: asyncio.Future[T]) -> T:
        """What the loop sets for this caller alone; the loop passes by what is done. Raises Unavailable after PATIENCE
        seconds."""
        now = future.get_loop().time()
        self._waiting.append((now + PATIENCE, future))
        self._look(now)
        return await future

    def _look(self, now: float) -> None:
        """At the first in line: who is answered leaves it, and who has waited too long is."""
        while self._waiting and ((first := self._waiting[0])[1].done() or first[0] <= now):
            self._waiting.popleft()
            if not first[1].done():
                away = "the database does not answer; try again"
                first[1].set_exception(Unavailable("unavailable", away, retry_after=2))
        if self._waiting and not self._timer:
            until, future = self._waiting[0]
            self._timer = future.get_loop().call_at(until, self._ring, future.get_loop())

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._look(loop.time())


async def of_blobs(verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a verb of the store of blobs gives. Raises what it does, and BlobUnavailable after PATIENCE seconds; what
    has begun may still be done later."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.get_running_loop().run_in_executor(_blobs, partial(verb, *args, **kwargs))
    except TimeoutError as error:
        raise BlobUnavailable(f"the store of blobs does not answer within {PATIENCE:g} s") from error
