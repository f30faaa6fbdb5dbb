"""`python -m workers.chores`: each chore at its interval, until SIGTERM. Those that others would have to wait for, or
that may wait for none, have threads."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import redis

from tundish import logs, store
from tundish.blobs import BlobUnavailable, open_blobs
from tundish.settings import SettingError, Settings
from workers import connect
from workers.chores import (
    Chore,
    Tools,
    batches,
    bury,
    expire,
    forget,
    partitions,
    reap,
    retention,
    survey,
    uploads,
)

log = logging.getLogger("workers.chores")


def _chores(*modules: ModuleType) -> list[Chore]:
    return [Chore(module.__name__.rpartition(".")[2], module.EVERY, module.run) for module in modules]


SWEEPS = _chores(partitions, survey, expire, forget, bury)
#: The jobs of a dead worker wait for no other chore: a survey takes the longer the more is open, and waits for Redis.
LEASES = _chores(reap)
#: They delete blobs, which are many, or whose store hangs: no sweep waits for that.
BLOBS = _chores(retention, uploads)
#: They read and write whole files: no sweep waits for them, and a long one does not wait for another.
FILES = _chores(batches)
FILE_THREADS = 4
#: Seconds until a chore that moved something is due again: there may be more of it.
MORE = 0.1
#: Seconds to wait after Postgres, Redis or the blob store failed.
RETRY = 2.0

_outage = logs.Outage(log)


def main() -> int:
    try:
        settings = Settings.from_environment()
        settings.demand("database_url", "redis_url", "blob_url")
        logs.configure(settings.log_format, settings.log_level)
        blobs = open_blobs(settings)
    except SettingError as error:
        print(f"chores: {error}", file=sys.stderr)
        return 2
    stopped = threading.Event()
    heed(stopped)
    # The sweeps, leases, what deletes blobs, and for each file one that works and one that holds the batch.
    engine = store.engine(settings.database_url, 3 + 2 * FILE_THREADS)
    tools = Tools(settings, engine, connect.redis_client(settings.redis_url), blobs, stopped)
    work(tools)
    return 0


def heed(stopped: threading.Event) -> None:
    """From here on SIGTERM and SIGINT set it."""

    def stop(*_: object) -> None:
        # By a thread: the signal may have come while this one, which waits for the event, holds its lock.
        threading.Thread(target=stopped.set, name="stop", daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def work(tools: Tools) -> None:
    """Run all chores until `tools` are stopped."""
    log.info("chores run: %s", ", ".join(chore.name for chore in (*SWEEPS, *LEASES, *BLOBS, *FILES)))
    schedules = [Schedule(LEASES), Schedule(BLOBS), *[Schedule(FILES)] * FILE_THREADS]
    with ThreadPoolExecutor(len(schedules)) as pool:
        beside = [pool.submit(_serve, schedule, tools) for schedule in schedules]
        _serve(Schedule(SWEEPS), tools)
        for each in beside:
            each.result()


class Schedule:
    """When chores are due, for all threads that run them: one waits for the next, the others for that thread to be busy
    with it."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._due = dict.fromkeys(chores, time.monotonic())
        self._waits = threading.Lock()

    def next(self, stopped: threading.Event) -> Chore | None:
        """Wait for the chore that is due next, which then is due again after its interval; None once stopped."""
        with self._waits:
            chore = min(self._due, key=lambda each: self._due[each])
            if stopped.wait(max(0.0, self._due[chore] - time.monotonic())):
                return None
            self.again(chore, chore.every)
            return chore

    def again(self, chore: Chore, seconds: float) -> None:
        """It is due in so many seconds."""
        self._due[chore] = time.monotonic() + seconds


def _serve(schedule: Schedule, tools: Tools) -> None:
    """Run chores when they are due. Where one breaks, all stop, and the process is started anew."""
    try:
        while chore := schedule.next(tools.stopped):
            schedule.again(chore, _once(chore, tools))
    finally:
        tools.stopped.set()


def _once(chore: Chore, tools: Tools) -> float:
    """Run a chore; the seconds until it is due again."""
    try:
        moved = chore.run(tools)
    except (store.StoreError, redis.RedisError, BlobUnavailable) as error:
        _outage.waits(chore.name, error)
        return RETRY
    _outage.over(chore.name)
    if moved:
        log.info("%s: %d moved", chore.name, moved)
    return MORE if moved else chore.every


if __name__ == "__main__":
    sys.exit(main())
