"""`./dev down`: stop what `./dev up` started."""

import fcntl
import os
import signal
import time
from contextlib import suppress

from local.place import alive, owner
from local.say import say, step
from tundish.settings import Settings


def main(arguments: list[str]) -> int:
    if arguments:
        say("usage: ./dev down")
        return 2
    root = Settings.from_environment().data_dir.absolute()
    pid = owner(root)
    if pid is None or not _locked(root / "lock"):
        say(f"nothing runs in {root}")
        return 0
    with suppress(ProcessLookupError):  # where it was killed, what it ran is being stopped
        os.kill(pid, signal.SIGTERM)
    with step("stopping"), (root / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held until the last child is gone
        until = time.monotonic() + 2
        while alive(pid) and time.monotonic() < until:
            time.sleep(0.02)
    say("stopped")
    return 0


def _locked(path: "os.PathLike[str]") -> bool:
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
