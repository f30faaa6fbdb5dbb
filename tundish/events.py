"""What a running job says on its way: the vocabulary of the events between workers and API, and their bounds.

The events of a job are one Redis stream. The id of an entry is `ATTEMPT-NUMBER`: an attempt is counted by Postgres and
its events by the worker, so that no clock decides an order, Redis itself refuses what a worker of an earlier attempt
still says, and a reader goes on exactly where it stopped even if Redis has forgotten all before.
"""

import json
import math
import re
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from tundish import device

#: Redis pub/sub channel on which the ids of jobs that said something wake who listens to them.
CHANNEL = "tundish:events"
#: Events of one job that are kept at most, and their bytes: the oldest go first.
LENGTH = 10_000
BYTES = 16 * 2**20
#: Bytes of a piece, as JSON, or of a line of the log.
LARGEST = 16384
#: Seconds that a job's events are kept after the last of them, and at most as long as the job.
KEPT = 3600.0

_POSITION = re.compile(r"(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,17})")


class Kind(StrEnum):
    """An event's name; `status` events are made from the job's row and are not in the stream."""

    STATUS = "status"
    PROGRESS = "progress"
    LOG = "log"
    OUTPUT = "output"


class Unfit(ValueError):
    """What cannot be sent as an event; the message says what can."""


class Position(NamedTuple):
    """Where an event stands among those of its job; number 0 stands before the first of its attempt."""

    attempt: int
    number: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises ValueError for a text that is none."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise ValueError(f"not the id of an event: {text!r}")
        return cls(int(found[1]), int(found[2]))


def key(job: UUID) -> str:
    """The name of a job's stream."""
    return f"{CHANNEL}:{job.hex}"


def piece_data(piece: Any, attempt: int, run: int = 1) -> bytes:
    """The data of an `output` event. `run` counts the predict calls of one attempt: from the second on it is told, for
    it voids what was emitted before. Raises Unfit."""
    again = f',"run":{run}' if run > 1 else ""
    try:
        text = json.dumps(piece, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = f'{{"piece":{text},"attempt":{attempt}{again}}}'.encode()
    except Exception as error:  # of what an author's type raises too
        raise Unfit(f"a piece is what JSON can carry, text, numbers, lists and dicts: {device.said(error)}") from error
    if len(text) > LARGEST or len(data) > LARGEST + 64:
        raise Unfit(f"a piece has at most {LARGEST} bytes as JSON: emit smaller ones, or return it")
    return data


def log_data(text: str) -> bytes:
    """The data of a `log` event; a text that is too long is cut."""
    cut = device.said(text).encode("utf-8", "replace")[:LARGEST].decode("utf-8", "ignore")
    return json.dumps({"text": cut}, ensure_ascii=False).encode()


def fields(kind: Kind, data: bytes, progress: float | None) -> dict[Any, Any]:
    """An entry of the stream. Each carries the latest progress too, where there is one, so that the newest alone tells
    it; few fields, for a reader's time goes by their number."""
    said = {} if kind is Kind.PROGRESS else {kind.value: data}
    return said if progress is None else {**said, Kind.PROGRESS.value: progress}


def said_by(entry: dict[bytes, bytes]) -> tuple[str, bytes]:
    """The event of an entry, and its data."""
    for name, data in entry.items():
        if name != b"progress":
            return name.decode(), data
    return Kind.PROGRESS, b'{"progress":%b}' % entry[b"progress"]


def progress_of(entry: dict[bytes, bytes]) -> float | None:
    """The latest progress, as of an entry."""
    return float(entry[b"progress"]) if b"progress" in entry else None


def fraction_of(value: Any) -> float:
    """A progress from 0 to 1. Raises Unfit for what is no number."""
    try:
        fraction = float(value)
    except Exception as error:  # a tensor's are of any kind
        raise Unfit(f"progress is a number from 0 to 1: {device.said(error)}") from error
    if not math.isfinite(fraction):
        raise Unfit(f"progress is a number from 0 to 1, not {fraction}")
    return min(1.0, max(0.0, fraction))
