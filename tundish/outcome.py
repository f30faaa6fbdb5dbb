"""What goes into a batch and what comes of it: an item, and for each its outcome."""

from typing import NamedTuple

from tundish import device
from tundish.file import File
from tundish.job import Code

#: What ends the process, whoever raises it. All else that a model raises is about its items, also what is no Exception:
#: a panic of Rust, as of a tokeniser, or asyncio's CancelledError.
ENDING = (SystemExit, KeyboardInterrupt, GeneratorExit)


class Item(NamedTuple):
    """An input as it lies in the store, and how many seconds a predict with it may take."""

    body: bytes | File
    content_type: str
    timeout: float = float("inf")


class Done(NamedTuple):
    """An output as it shall lie in the store."""

    body: bytes | File
    content_type: str


class Failed(NamedTuple):
    """Why an item has no output."""

    code: Code
    message: str
    details: dict[str, object] | None = None


class Canceled(NamedTuple):
    """The model was told that the item's caller cancelled it, or it was let go between two predict calls."""


Outcome = Done | Failed | Canceled


def failure_of(error: BaseException) -> Failed:
    """What an item is told of an error that is its own, or of one that leaves nobody else to blame."""
    if device.out_of_memory(error):
        return Failed(Code.OUT_OF_MEMORY, f"the device's memory does not hold this item alone: {device.said(error)}")
    return Failed(Code.MODEL_ERROR, f"{type(error).__name__}: {device.said(error)}")


def size_of(body: bytes | File) -> int:
    """Bytes."""
    if not isinstance(body, File):
        return len(body)
    try:
        return body.path.stat().st_size
    except OSError:  # its model has taken it away
        return 0
