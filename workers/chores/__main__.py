"""`python -m workers.chores`: each chore at its interval, until SIGTERM."""

import logging
import signal
import sys
import threading
import time

import redis

from tundish import logs, store
from tundish.blobs import BlobUnavailable, open_blobs
from tundish.settings import SettingError, Settings
from workers import connect
from workers.chores import Chore, Tools, bury, expire, forget, marks, partitions, reap, resend, retention, uploads

log = logging.getLogger("workers.chores")

CHORES = [
    Chore(module.__name__.rpartition(".")[2], module.EVERY, module.run)
    for module in (partitions, reap, resend, expire, marks, retention, uploads, forget, bury)
]
#: Seconds to wait after Postgres, Redis or the blob store failed.
RETRY = 2.0


def main() -> int:
    try:
        settings = Settings.from_environment()
        logs.configure(settings.log_format, settings.log_level)
        blobs = open_blobs(settings)
    except SettingError as error:
        print(f"chores: {error}", file=sys.stderr)
        return 2
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    tools = Tools(settings, store.engine(settings.database_url), connect.redis_client(settings.redis_url), blobs)
    log.info("chores run: %s", ", ".join(chore.name for chore in CHORES))
    due = dict.fromkeys(CHORES, time.monotonic())
    while not stopped.is_set():
        chore = min(due, key=lambda each: due[each])
        if stopped.wait(max(0.0, due[chore] - time.monotonic())):
            break
        due[chore] = time.monotonic() + _once(chore, tools)
    return 0


def _once(chore: Chore, tools: Tools) -> float:
    """Run a chore; the seconds until it is due again. A chore that moved jobs may have more of them: it is due at
    once."""
    try:
        moved = chore.run(tools)
    except (store.StoreError, redis.RedisError, BlobUnavailable) as error:
        log.warning("%s has to wait: %s", chore.name, error)
        return RETRY
    if moved:
        log.info("%s: %d moved", chore.name, moved)
    return 0.1 if moved else chore.every


if __name__ == "__main__":
    sys.exit(main())
