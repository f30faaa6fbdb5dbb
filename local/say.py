"""Lines to the person at the terminal: what is done, and how long it took where that was over a second."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stop(Exception):
    """What cannot go on, in a line that says what to do."""


def say(line: str) -> None:
    print(line, flush=True)


def now() -> str:
    """The time, for what is said long after the start."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def step(what: str) -> Iterator[None]:
    """Name a step once it takes over a second, count on a terminal while it goes on, and say how long it took."""
    began = time.monotonic()
    over = threading.Event()

    def count() -> None:
        while not over.wait(1):
            if sys.stdout.isatty():
                print(f"\r  {what} … {time.monotonic() - began:.0f} s", end="", flush=True)
            elif time.monotonic() - began < 2:
                say(f"  {what} …")

    counting = threading.Thread(target=count, daemon=True)
    counting.start()
    try:
        yield
    finally:
        over.set()
        counting.join()
        took = time.monotonic() - began
        if took > 1 and sys.stdout.isatty():
            print("\r", end="")
    if took > 1:
        say(f"  {what}: {took:.1f} s")
