"""Room: how many bytes of one kind a process may hold at once. In one event loop."""

import asyncio
import weakref
from collections.abc import Callable


class Room:
    """`size` bytes. Who finds too little waits in line, and nobody passes him; what is larger than all of it is given
    all of it."""

    def __init__(self, size: int) -> None:
        self.size = self._free = size
        self._line = asyncio.Lock()  # its owner is the first in line
        self._more = asyncio.Event()

    def take(self, size: int) -> bool:
        """Take so many bytes, where that many are free and nobody waits."""
        if self._line.locked() or not self._fits(size):
            return False
        self._free -= size
        return True

    async def wait(self, size: int) -> None:
        """Take so many bytes, once they are free."""
        async with self._line:
            while not self._fits(size):
                self._more.clear()
                await self._more.wait()
            self._free -= size

    def give(self, size: int) -> None:
        """So many bytes are free again."""
        self._free += size
        self._more.set()

    def _fits(self, size: int) -> bool:
        return min(size, self.size) <= self._free


class Hold:
    """Bytes of a room. They are given back by `give`, or when nobody holds what lies in them any more."""

    def __init__(self, give: Callable[[], object]) -> None:
        self.give = weakref.finalize(self, give)
        self.give.atexit = False
