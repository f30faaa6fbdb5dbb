"""`python -m api`: the API on TUNDISH_HOST and TUNDISH_PORT."""

import asyncio
import gc
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable
from math import ceil

import uvicorn
import uvloop
from starlette.types import ASGIApp

from api.app import create
from api.wire import Protocol
from tundish import logs, openfiles
from tundish.settings import SettingError, Settings

#: Seconds that a client has to take its answer when the process stops.
LINGER = 3.0


class _Server(uvicorn.Server):
    """Calls `stop` when it begins to stop: it waits for what is open, and a stream may be open for a day."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop()
        asyncio.get_running_loop().call_later(LINGER, self._hang_up)
        await super().shutdown(sockets)

    def _hang_up(self) -> None:
        """On clients that do not read what they asked for."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol) and connection.flow.write_paused:
                connection.transport.abort()


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main() -> int:
    try:
        settings = Settings.from_environment()
        settings.demand("database_url", "redis_url", "blob_url")
        if not settings.api_key and not _loopback(settings.host):
            raise SettingError(
                f"TUNDISH_HOST is {settings.host}: without a key the API serves loopback only; set TUNDISH_API_KEY"
            )
        app = create(settings)
    except SettingError as error:
        print(f"api: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_format, settings.log_level)
    openfiles.allow()
    server = _Server(_config(app, settings), app.stop)
    # uvicorn raises the signal that stopped it once more, for who had a handler before: to have stopped is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # An answer's objects are in no cycles, and what stays need not be looked at: a look stopped all answers (p99 of a
    # read 54 ms, so it is 12).
    gc.set_threshold(20_000, 50, 100)
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve())
    except SystemExit:  # uvicorn's, which has logged why
        if not server.lifespan.should_exit:
            where = f"{settings.host}:{settings.port}"
            print(f"api: {where} cannot be used, see above; set TUNDISH_PORT, or TUNDISH_HOST", file=sys.stderr)
        raise
    return 0 if server.started else 1


def _config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        proxy_headers=False,  # nothing here asks for the client's address
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=ceil(settings.grace),
        backlog=2048,
        # Over the minute after which most clients and load balancers hang up by themselves: where the server is the
        # first to do so, a request that is under way meanwhile fails.
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    sys.exit(main())
