"""How long a request waits for one of the loops behind the routes, and for the store of blobs."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from tundish.blobs import BlobUnavailable
from tundish.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds: with what goes before and after, every call is answered within 10 s.
PATIENCE = 8.0

#: Threads of their own: a store that stalls keeps them for minutes, and nothing else waits for one.
_blobs = ThreadPoolExecutor(64, "blobs")


def no_database() -> Unavailable:
    """What a caller is told where Postgres does not answer, or not in time."""
    return Unavailable("unavailable", "the database does not answer; try again", retry_after=2)


def no_blobs() -> Unavailable:
    """The same of the store of blobs."""
    return Unavailable("unavailable", "the store of large payloads does not answer; try again", retry_after=2)


async def answered(future: asyncio.Future[T]) -> T:
    """What a loop sets for this caller alone; the loop passes by what is done. Raises Unavailable after PATIENCE
    seconds."""
    timer = future.get_loop().call_later(PATIENCE, _give_up, future)
    try:
        return await future
    finally:
        timer.cancel()


async def of_blobs(verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a verb of the store of blobs gives. Raises what it does, and BlobUnavailable after PATIENCE seconds; what
    has begun may still be done later."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await of_blobs_at_length(verb, *args, **kwargs)
    except TimeoutError as error:
        raise BlobUnavailable(f"the store of blobs does not answer within {PATIENCE:g} s") from error


async def of_blobs_at_length(verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same, however long it takes: gigabytes that are copied or read."""
    return await asyncio.get_running_loop().run_in_executor(_blobs, partial(verb, *args, **kwargs))


def _give_up(future: asyncio.Future[T]) -> None:
    if not future.done():
        future.set_exception(no_database())
