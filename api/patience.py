"""How long a request waits for one of the loops behind the routes."""

import asyncio
from typing import TypeVar

from tundish.errors import Unavailable

T = TypeVar("T")

#: Seconds: with what goes before and after, every call is answered within 10 s.
PATIENCE = 8.0


async def answered(future: asyncio.Future[T]) -> T:
    """What a loop sets, and sets for others too where this caller leaves. Raises Unavailable after PATIENCE seconds."""
    await asyncio.wait([future], timeout=PATIENCE)
    if not future.done():
        raise Unavailable("unavailable", "the database does not answer; try again", retry_after=2)
    return future.result()
