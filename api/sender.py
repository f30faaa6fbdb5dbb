"""Messages to their lists in Redis, over a connection of its own, which writes them before the answers of their flush
are written. Behind a pool, which looks at a connection before it gives it, or with a time-out around each write, they
came after all the answers."""

import asyncio
from collections.abc import Mapping, Sequence

import redis
import redis.asyncio


class Sender:
    """Pushes for all who ask, one after another."""

    def __init__(self, redis_url: str) -> None:
        pool = redis.asyncio.ConnectionPool.from_url(redis_url, socket_timeout=None, socket_connect_timeout=5)
        self._connection = pool.make_connection()  # type: ignore[no-untyped-call]
        self._turn = asyncio.Lock()

    async def push(self, lists: Mapping[str, Sequence[bytes]]) -> None:
        """All of it in one round trip. It waits for as long as it is let. Raises RedisError and OSError."""
        commands: list[tuple[str | bytes, ...]] = [("LPUSH", name, *messages) for name, messages in lists.items()]
        async with self._turn:
            try:
                await self._push(commands)
            except (redis.ConnectionError, OSError):  # it was closed since, as by a restart
                await self._push(commands)

    async def _push(self, commands: Sequence[tuple[str | bytes, ...]]) -> None:
        connection = self._connection
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                await connection.read_response()
        except BaseException:
            await connection.disconnect(nowait=True)  # or the next one would read what was left to this one
            raise

    async def close(self) -> None:
        await self._connection.disconnect()
