"""The GPU of this machine, as NVIDIA's library sees it: whether there is one, and how busy it is over time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pynvml

#: Seconds between two looks.
EVERY = 0.1


def name() -> str:
    """What the machine's first GPU is called."""
    with _library() as there:
        return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))) if there else "no GPU"


def there() -> bool:
    with _library() as found:
        return found


@contextmanager
def watched() -> Iterator[list[tuple[float, float]]]:
    """Collects `(seconds since the start, percent busy)` while the block runs; nothing where there is no GPU."""
    seen: list[tuple[float, float]] = []
    over = threading.Event()

    def look() -> None:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        began = time.monotonic()
        while not over.wait(EVERY):
            busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
            seen.append((time.monotonic() - began, float(busy)))

    with _library() as found:
        looking = threading.Thread(target=look, daemon=True)
        if found:
            looking.start()
        try:
            yield seen
        finally:
            over.set()
            if found:
                looking.join()


@contextmanager
def _library() -> Iterator[bool]:
    """Whether the library finds a GPU."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield pynvml.nvmlDeviceGetCount() > 0
    finally:
        pynvml.nvmlShutdown()
