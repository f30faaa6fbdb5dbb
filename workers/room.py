"""Room: how many bytes of one kind a process may hold at once. In one event loop."""

import asyncio
from collections import deque


class Room:
    """`size` bytes. Who finds too little waits in line, and nobody passes him; what is larger than all of it is given
    all of it."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, size: int) -> bool:
        """Take so many bytes, where that many are free and nobody waits."""
        if self._line or min(size, self._size) > self._free:
            return False
        self._free -= size
        return True

    async def wait(self, size: int) -> None:
        """Take so many bytes, once they are free."""
        if self.take(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            else:
                self._line.remove((size, turn))
                self._let_in()
            raise

    def give(self, size: int) -> None:
        """So many bytes are free again."""
        self._free += size
        self._let_in()

    def _let_in(self) -> None:
        while self._line and min(self._line[0][0], self._size) <= self._free:
            size, turn = self._line.popleft()
            self._free -= size
            if not turn.cancelled():
                turn.set_result(None)
