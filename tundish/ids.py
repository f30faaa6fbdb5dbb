"""Identifiers: UUIDv7 inside (RFC 9562), TypeID outside (`job_` and 26 characters of base32, TypeID 0.3).

UUIDv7 is time: rows made together lie together in the index, partitions are ranges of ids, and a random UUID wrote
2.3 times the WAL.
"""

import os
import threading
import time
from datetime import UTC, datetime
from uuid import UUID

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
#: Ten bits are two letters.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
#: Our letters to the digits of int(…, 32); all else, signs and underscores too, to what is none.
_DIGITS = bytes(
    b"0123456789abcdefghijklmnopqrstuv"[_ALPHABET.find(chr(at))] if chr(at) in _ALPHABET else 33 for at in range(256)
)

_RANDOM = (1 << 74) - 1
_turn = threading.Lock()
_last = (0, 0)
#: Milliseconds that a clock may go back without the ids: one that is set back further was wrong, and its ids must not
#: stay so for as long as the process runs.
_BACK = 10_000


def new_uuid(at: datetime | None = None) -> UUID:
    """A new UUIDv7 of now, by this host's clock or as it is given. In one process each is greater than the one before,
    unless the clock is set back by over 10 s: within a millisecond the random bits go on from the last ones by a random
    step (RFC 9562, 6.2, method 2)."""
    global _last
    random = int.from_bytes(os.urandom(10), "big")
    with _turn:
        milliseconds = int(at.timestamp() * 1000) if at else time.time_ns() // 1_000_000
        if _last[0] - _BACK <= milliseconds <= _last[0]:
            milliseconds, before = _last
            random = before + 1 + (random & 0xFFFFFFFF)
            if random > _RANDOM:
                milliseconds, random = milliseconds + 1, random & 0xFFFFFFFF
        random &= _RANDOM
        _last = (milliseconds, random)
    high = milliseconds << 16 | 0x7000 | random >> 62
    low = 0b10 << 62 | random & ((1 << 62) - 1)
    return UUID(int=high << 64 | low)


#: Random in every UUIDv7, and too high for ids of one millisecond to run into one another by it.
_SHADOW = 1 << 61


def shadow_id(id: UUID) -> UUID:
    """The id of a job's shadow: its own with one bit turned. So it is found by primary key, in the same partition."""
    return UUID(int=id.int ^ _SHADOW)


def floor_uuid(at: datetime) -> UUID:
    """The smallest UUIDv7-shaped value of a moment: every id made at or after `at` is greater or equal."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def milliseconds_of(id: UUID) -> int:
    """The moment that a UUIDv7 carries, in milliseconds since 1970; any UUID has one."""
    return id.int >> 80


def seconds_of(id: UUID) -> float:
    """The same in seconds."""
    return milliseconds_of(id) / 1000


def time_of(id: UUID) -> datetime:
    """The moment, to the millisecond, that a UUIDv7 carries. Raises ValueError beyond the year 9999."""
    return datetime.fromtimestamp(seconds_of(id), UTC)


def to_text(prefix: str, id: UUID) -> str:
    """`job`, UUID → `job_01…`."""
    at, pairs = id.int, _PAIRS
    return (
        f"{prefix}_{pairs[at >> 120]}{pairs[at >> 110 & 1023]}{pairs[at >> 100 & 1023]}{pairs[at >> 90 & 1023]}"
        f"{pairs[at >> 80 & 1023]}{pairs[at >> 70 & 1023]}{pairs[at >> 60 & 1023]}{pairs[at >> 50 & 1023]}"
        f"{pairs[at >> 40 & 1023]}{pairs[at >> 30 & 1023]}{pairs[at >> 20 & 1023]}{pairs[at >> 10 & 1023]}"
        f"{pairs[at & 1023]}"
    )


def from_text(prefix: str, text: str) -> UUID | None:
    """`job_01…` → UUID; None where the text is not a TypeID of that prefix."""
    head, separator, letters = text.partition("_")
    if head != prefix or not separator or len(letters) != 26 or letters[0] > "7" or not letters.isascii():
        return None
    try:
        return UUID(int=int(letters.encode().translate(_DIGITS), 32))
    except ValueError:
        return None
