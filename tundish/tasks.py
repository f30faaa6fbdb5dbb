"""Ending what runs in an event loop."""

import asyncio
from collections.abc import Collection
from typing import Any

#: Seconds after which a task that goes on is cancelled again.
AGAIN = 0.5


async def end(tasks: Collection["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until they have ended: a library may swallow a cancel, as redis-py does while it subscribes. What
    they raise is left to who looks at them."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=AGAIN)
