"""How long a request waits for one of the loops behind the routes."""

import asyncio
from typing import TypeVar

from tundish.errors import Unavailable

T = TypeVar("T")

#: Seconds: with what goes before and after, every call is answered within 10 s.
PATIENCE = 8.0


async def answered(future: asyncio.Future[T]) -> T:
    """What a loop sets for this caller alone; the loop passes by what is done. Raises Unavailable after PATIENCE
    seconds."""
    timer = asyncio.get_running_loop().call_later(PATIENCE, _give_up, future)
    try:
        return await future
    finally:
        timer.cancel()


def _give_up(future: asyncio.Future[T]) -> None:
    if not future.done():
        future.set_exception(Unavailable("unavailable", "the database does not answer; try again", retry_after=2))
