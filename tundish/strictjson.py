"""JSON as RFC 8259 has it, and nothing that two readers could take differently (I-JSON, RFC 7493).

A body is refused for: bytes that are not UTF-8, a byte order mark, broken syntax, a key given twice in one object,
nesting deeper than 64, a surrogate without its other half, NaN and Infinity, a number beyond double precision.
A NUL inside a string is fine.
"""

import json
from collections.abc import Sequence
from itertools import accumulate
from math import isfinite
from typing import NoReturn

import msgspec

MAX_DEPTH = 64

_MAX_DIGITS = 4300  # what int() takes unless told otherwise (CVE-2020-10735); double precision ends at 309
_BRACKETS = b"[]{}"
_DIGITS_TO_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_BEYOND_DOUBLE = b"0" * 309  # digits: every shorter integer is finite in double precision
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_TO_STEPS = bytes.maketrans(_BRACKETS, b"\x01\xff\x01\xff")  # an opening bracket is +1, a closing one -1 as int8

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class InvalidJSON(ValueError):
    """A body that is refused. `position` is the offset of the fault in bytes, None where it has no one place."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message if position is None else f"{message} at byte {position}")
        self.message = message
        self.position = position


def loads(body: bytes) -> object:
    """The value of a JSON document in UTF-8. Raises InvalidJSON, never RecursionError, at any size and depth.

    msgspec is as strict as we are but for two things: of a key given twice it keeps the last, and it takes integers
    that no double holds. The first shows when it writes the value again: a lost key takes its colon with it. Whatever
    is not plainly good goes to the slow reader, which says what is wrong.
    """
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _too_deep(body):
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH}")
    try:
        value = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _explain(body)
    # A colon written as an escape appears in the second count alone, and could stand in for a lost one.
    every_key_kept = _encode(value).count(b":") == body.count(b":") and b"\\u003" not in body
    small_numbers = len(body) < 309 or _BEYOND_DOUBLE not in body.translate(_DIGITS_TO_ZEROS)
    return value if every_key_kept and small_numbers else _explain(body)


def _too_deep(body: bytes) -> bool:
    """Whether brackets outside of strings nest over MAX_DEPTH; of a broken document, its good beginning counts."""
    outside = body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2]
    steps = b"".join(outside).translate(_TO_STEPS, _ALL_BUT_BRACKETS)
    return any(map(MAX_DEPTH.__lt__, accumulate(memoryview(steps).cast("b"))))


def _explain(body: bytes) -> object:
    """The same by the standard library, several times slower, with the reason and place of each fault."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJSON("not UTF-8", error.start) from None
    if text.startswith("\ufeff"):
        raise InvalidJSON("starts with a byte order mark", 0)
    try:
        value: object = json.loads(
            text, object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        reason = error.msg[0].lower() + error.msg[1:].removesuffix(" starting at")
        raise InvalidJSON(reason, len(text[: error.pos].encode())) from None
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InvalidJSON("a surrogate without its other half") from None
    return value


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidJSON(f"duplicate key {_short(twice)}")
    return value


def _float(literal: str) -> float:
    value = float(literal)
    if not isfinite(value):
        raise InvalidJSON(f"number beyond double precision: {_short(literal)}")
    return value


def _int(literal: str) -> int:
    if len(literal) > _MAX_DIGITS or not isfinite(float(literal)):
        raise InvalidJSON(f"number beyond double precision: {_short(literal)}")
    return int(literal)


def _constant(literal: str) -> NoReturn:
    raise InvalidJSON(f"{literal} is not JSON")


def _short(text: str) -> str:
    return json.dumps(text if len(text) <= 40 else text[:40] + "…")
