"""`python -m local.watchdog`: ends the children of a supervisor that died without ending them.

It reads `+PID SIGNAL` and `-PID` lines from its standard input; at the end of that it stops what is left, the last
started first. It holds the place's lock as long as it lives.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

from local.place import alive

#: Seconds that a child has to end before it is killed.
GRACE = 10.0


def end(pid: int, number: int, grace: float = GRACE) -> None:
    """Ask a child to end, and kill its process group where it does not; what it left in that group goes with it. Works
    on who is not our child too."""
    for sent, wait in ((number, grace), (signal.SIGKILL, 5.0)):
        try:
            if sent == signal.SIGKILL:
                os.killpg(pid, sent)
            else:
                os.kill(pid, sent)
        except (ProcessLookupError, PermissionError):
            return
        until = time.monotonic() + wait
        while time.monotonic() < until:
            if not alive(pid):
                end_group(pid)
                return
            time.sleep(0.02)


def end_group(pid: int) -> None:
    """What a child that has ended left behind in its process group goes with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    children: dict[int, int] = {}
    for line in sys.stdin:
        pid, _, number = line[1:].partition(" ")
        if line[0] == "+":
            children[int(pid)] = int(number)
        else:
            children.pop(int(pid), None)
    for child, stop in reversed(children.items()):
        end(child, stop)
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
