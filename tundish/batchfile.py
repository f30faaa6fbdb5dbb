"""A batch file: JSONL, each line `{"custom_id", "input"}`. Its limits, its lines, and how its batch ends. Pure, but
for the file that is passed in.

A line ends with a line feed, the last one need not; a carriage return before it is white space. Each line counts, an
empty one too: what is no line as it is wanted is refused, and its batch goes on.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, BinaryIO, NamedTuple

import msgspec

from tundish import strictjson

LINES_MAX = 50_000
BYTES_MAX = 200_000_000
#: Bytes that are read at once where nothing but line feeds matters.
CHUNK = 1 << 20


class Status(StrEnum):
    """A batch is `validating` until its lines are counted."""

    VALIDATING = "validating"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    EXPIRED = "expired"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        return self not in (Status.VALIDATING, Status.RUNNING)


class Fault(StrEnum):
    """The `code` of a line that became no job, or whose job has no end of its own to tell; and of what ends a batch."""

    INVALID_JSON = "invalid_json"
    INVALID_LINE = "invalid_line"
    LINE_TOO_LARGE = "line_too_large"
    DUPLICATE = "duplicate_custom_id"
    MODEL_GONE = "model_not_found"
    CANCELED = "canceled"
    DELETED = "deleted"
    TOO_MANY_LINES = "too_many_lines"


class Counts(msgspec.Struct, frozen=True):
    """`total` is every line; one that was refused is among `failed`."""

    total: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0


class RawLine(NamedTuple):
    """`number` counts from 1, `end` is the offset of the next line; `text` is None where it is too long to be read."""

    number: int
    text: bytes | None
    end: int


CustomId = Annotated[str, msgspec.Meta(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """`input` is carried bit for bit."""

    custom_id: CustomId
    input: msgspec.Raw


class _Named(msgspec.Struct):
    """A line of which only the name is asked."""

    custom_id: CustomId


class BadLine(ValueError):
    """A line that is refused; `custom_id` is told where it has one."""

    def __init__(self, fault: Fault, message: str, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.custom_id = custom_id


_line = msgspec.json.Decoder(Line)
_named = msgspec.json.Decoder(_Named)


def count(file: BinaryIO) -> int:
    """How many lines a file has, read to its end."""
    feeds, last = 0, b"\n"
    while piece := file.read(CHUNK):
        feeds += piece.count(b"\n")
        last = piece[-1:]
    return feeds + (last != b"\n")


def lines(file: BinaryIO, number: int, offset: int, most: int) -> Iterator[RawLine]:
    """The lines of a file that stands at `offset`, behind line `number`. One of over `most` bytes is not held."""
    while text := file.readline(most + 1):
        offset += len(text)
        too_long = len(text) > most and not text.endswith(b"\n")
        rest = text if too_long else b""
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(CHUNK)
            offset += len(rest)
        number += 1
        yield RawLine(number, None if too_long else text, offset)


def parse(raw: RawLine, most: int) -> tuple[Line, Any]:
    """A line, and the value of its input. Raises BadLine."""
    if raw.text is None:
        raise BadLine(Fault.LINE_TOO_LARGE, f"the line is over {most} bytes; put its input into an upload of its own")
    if not raw.text.strip():
        raise BadLine(Fault.INVALID_JSON, 'the line is empty; each is {"custom_id", "input"}')
    try:
        value: Any = strictjson.loads(raw.text)
    except strictjson.InvalidJSON as error:
        raise BadLine(Fault.INVALID_JSON, f"the line is not JSON as it is taken here: {error}") from error
    try:
        return _line.decode(raw.text), value["input"]
    except msgspec.ValidationError as error:
        message = f'a line is {{"custom_id", "input"}}: {_lowered(str(error))}'
        raise BadLine(Fault.INVALID_LINE, message, _custom_id(raw.text)) from error


def verdict(*, broken: bool, canceled: bool, expired: bool) -> Status:
    """How a batch ends whose lines have all ended. `broken`: its file could not be read to the end; `canceled`: its
    cancel was asked for, and a line ended so; `expired`: a line ended so. A line that failed or was canceled by
    itself, or was refused, is no more than its own end."""
    if broken:
        return Status.FAILED
    if canceled:
        return Status.CANCELED
    return Status.EXPIRED if expired else Status.SUCCEEDED


def _custom_id(text: bytes) -> str | None:
    try:
        return _named.decode(text).custom_id
    except msgspec.ValidationError:
        return None


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]
