"""The strict reader, by a table of faults and against a slow, obvious reader of the grammar."""

import json
import math
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tundish.strictjson import MAX_DEPTH, InvalidJSON, loads

GOOD: list[tuple[bytes, object]] = [
    (b"null", None),
    (b" \t\r\n1 ", 1),
    (b"[]", []),
    (b'{"a": {"a": 1}, "b": {"a": 1}}', {"a": {"a": 1}, "b": {"a": 1}}),
    (b'"a\\u0000b"', "a\x00b"),
    (b'"\\ud83d\\ude00"', "\U0001f600"),
    (b'"\\\\ud800"', "\\ud800"),
    (b'{"a:b": ":", "c": "\\u003a"}', {"a:b": ":", "c": ":"}),
    (b'"\x7f\xc2\x80\xf4\x8f\xbf\xbf"', "\x7f\x80\U0010ffff"),
    (b'"\xef\xbb\xbf"', "\ufeff"),
    (b"18446744073709551616", 2**64),
    (b"-9223372036854775809", -(2**63) - 1),
    (b"1" + b"0" * 308, 10**308),
    (b"1.7976931348623157e308", 1.7976931348623157e308),
    (b"1e-400", 0.0),
    (b"0e99999", 0.0),
    (b"0." + b"1" * 5000, 1 / 9),
    (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
    (b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH, None),
    (b"[" + b"[]," * 500 + b"[]]", [[]] * 501),
    (b'["' + b"[" * 500 + b'\\"[[\\\\"]', ["[" * 500 + '"[[\\']),
]

BAD: list[tuple[bytes, str, int | None]] = [
    (b"", "expecting value", 0),
    (b"{", "expecting property name", 1),
    (b"[1,]", "expecting value", 3),
    (b"{'a': 1}", "expecting property name", 1),
    (b'["\xc3\xa9", x]', "expecting value", 7),
    (b"1 2", "extra data", 2),
    (b"01", "extra data", 1),
    (b".5", "expecting value", 0),
    (b"+1", "expecting value", 0),
    (b"1\x00", "extra data", 1),
    (b'"a\x00b"', "invalid control character", 2),
    (b'"\\x"', "invalid", 1),
    (b'"open', "unterminated string", 0),
    (b'"\xff"', "not UTF-8", 1),
    (b'"\xc0\x80"', "not UTF-8", 1),
    (b'"\xed\xa0\x80"', "not UTF-8", 1),
    (b'"\xf4\x90\x80\x80"', "not UTF-8", 1),
    (b'{"\xff": 1}', "not UTF-8", 2),
    ("[1]".encode("utf-16"), "not UTF-8", 0),
    ("[1]".encode("utf-16-le"), "expecting value", 1),
    (b"\xef\xbb\xbf1", "byte order mark", 0),
    (b'{"a":1,"a":1}', 'duplicate key "a"', None),
    (b'{"a":1,"\\u0061":2}', 'duplicate key "a"', None),
    (b'{"a":1,"a":"\\u003a"}', 'duplicate key "a"', None),
    (b'{"a":1,"a":"\\u003A"}', 'duplicate key "a"', None),
    (b'[{"x":{"a":[],"a":[]}}]', 'duplicate key "a"', None),
    (b'{"":1,"":2}', 'duplicate key ""', None),
    (b'"\\ud800"', "surrogate", None),
    (b'"\\udc00\\ud800"', "surrogate", None),
    (b'{"\\udfff":1}', "surrogate", None),
    (b'"\\ud800\\u0041"', "surrogate", None),
    (b"NaN", "NaN is not JSON", None),
    (b"[Infinity]", "Infinity is not JSON", None),
    (b"-Infinity", "-Infinity is not JSON", None),
    (b"1e400", "beyond double precision", None),
    (b"-1e400", "beyond double precision", None),
    (b"[1.7976931348623159e308]", "beyond double precision", None),
    (b"1" * 400, "beyond double precision", None),
    (b"-" + b"1" * 400, "beyond double precision", None),
    (b"2" + b"0" * 308, "beyond double precision", None),
    (b"1" * 5000, "beyond double precision", None),
    (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper than 64", None),
    (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper than 64", None),
    (b'["]]]]]\\\\",' * (MAX_DEPTH + 1), "nested deeper than 64", None),
]


@pytest.mark.parametrize(("body", "value"), GOOD, ids=lambda case: repr(case)[:40])
def test_good_document_is_read(body: bytes, value: object) -> None:
    read = loads(body)
    if value is None:
        value = json.loads(body)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(("body", "message", "position"), BAD, ids=lambda case: repr(case)[:40])
def test_fault_is_named_and_placed(body: bytes, message: str, position: int | None) -> None:
    with pytest.raises(InvalidJSON, match=re.escape(message)) as caught:
        loads(body)
    assert caught.value.position == position


@pytest.mark.parametrize("depth", [10_000, 1_000_000])
@pytest.mark.parametrize("piece", [b"[", b'{"a":', b"[[],", b'["\\"",'])
def test_deep_nesting_is_refused_quickly(depth: int, piece: bytes) -> None:
    body = piece * depth
    started = time.perf_counter()
    with pytest.raises(InvalidJSON, match="nested deeper"):
        loads(body)
    assert time.perf_counter() - started < 5.0


def test_long_digits_are_refused_quickly() -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidJSON, match="beyond double precision"):
        loads(b"1" * 10_000_000)
    assert time.perf_counter() - started < 5.0


# The reference: the grammar of RFC 8259 by hand, one character after the other, and each rule where it applies.


class Refused(Exception):
    pass


def refuse_unless(good: bool) -> None:
    if not good:
        raise Refused


def reference(body: bytes) -> object:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused from None
    value, rest = read_value(text.lstrip(" \t\r\n"), 0)
    refuse_unless(not rest.lstrip(" \t\r\n"))
    return value


def read_value(text: str, depth: int) -> tuple[object, str]:
    refuse_unless(text != "")
    for word, value in (("null", None), ("true", True), ("false", False)):
        if text.startswith(word):
            return value, text[len(word) :]
    if text[0] == '"':
        return read_string(text)
    if text[0] in "[{":
        refuse_unless(depth < MAX_DEPTH)
        return read_items(text, depth + 1)
    number = re.match(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text)
    refuse_unless(number is not None)
    assert number is not None
    refuse_unless(math.isfinite(float(number[0])))
    whole = number[2] is None and number[3] is None
    return int(number[0]) if whole else float(number[0]), text[number.end() :]


def read_items(text: str, depth: int) -> tuple[object, str]:
    close = "]" if text[0] == "[" else "}"
    keys: list[str] = []
    values: list[object] = []
    separator, text = text[0], text[1:].lstrip(" \t\r\n")
    while not (text.startswith(close) and separator in "[{"):
        if close == "}":
            key, text = read_string(text)
            keys.append(key)
            text = text.lstrip(" \t\r\n")
            refuse_unless(text.startswith(":"))
            text = text[1:].lstrip(" \t\r\n")
        value, text = read_value(text, depth)
        values.append(value)
        text = text.lstrip(" \t\r\n")
        refuse_unless(text.startswith((",", close)))
        if text[0] == close:
            break
        separator, text = ",", text[1:].lstrip(" \t\r\n")
    refuse_unless(len(set(keys)) == len(keys))
    return (dict(zip(keys, values, strict=True)) if close == "}" else values), text[1:]


def read_string(text: str) -> tuple[str, str]:
    refuse_unless(text.startswith('"'))
    units, at = b"", 1
    while True:
        refuse_unless(at < len(text) and text[at] >= " ")
        if text[at] == '"':
            break
        if text[at] != "\\":
            units += text[at].encode("utf-16-be")
            at += 1
        elif text[at + 1 : at + 2] == "u":
            refuse_unless(re.fullmatch(r"[0-9a-fA-F]{4}", text[at + 2 : at + 6]) is not None)
            units += bytes.fromhex(text[at + 2 : at + 6])
            at += 6
        else:
            short = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
            refuse_unless(text[at + 1 : at + 2] in short)
            units += short[text[at + 1]].encode("utf-16-be")
            at += 2
    try:
        return units.decode("utf-16-be"), text[at + 1 :]
    except UnicodeDecodeError:
        raise Refused from None


TOKENS = rb"""{ } [ ] , : " \ 1 - 0 . e E+ 400 null true false NaN Infinity "a" "a": "b": "\u0061": "\u003a" ":" "[[{"
\ud800 \udc00 "\ud800" "\ud83d\ude00" 99999999999999999999"""
LONG_PIECES = [b"1" * 309, b"[" * 40, b"]" * 40, b'{"a":' * 40]
PIECES = st.sampled_from(
    [*TOKENS.split(), *[b" ", b"\n", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc3\xa9"], *LONG_PIECES]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def outcome(reader: Callable[[bytes], object], body: bytes) -> str:
    """What a reader makes of a document."""
    try:
        return repr(reader(body))
    except (InvalidJSON, Refused):
        return "refused"


@given(st.lists(PIECES, max_size=12).map(b"".join))
@example(b'{"a":1,"a":":"}')
@example(b'{"a":1,"a":"\\u003a"}')
@example(b'{"a":1,"\\u0061":1}')
def test_random_tokens_agree_with_the_grammar(body: bytes) -> None:
    assert outcome(loads, body) == outcome(reference, body)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_any_value_survives(value: object, escaped: bool, indent: int | None) -> None:
    assert loads(json.dumps(value, ensure_ascii=escaped, indent=indent).encode()) == value


@given(VALUES, st.data())
def test_damaged_documents_agree_with_the_grammar(value: object, data: st.DataObject) -> None:
    body = json.dumps(value, ensure_ascii=False).encode()
    at = data.draw(st.integers(0, len(body)))
    cut = data.draw(st.integers(0, 3))
    body = body[:at] + data.draw(PIECES) + body[at + cut :]
    assert outcome(loads, body) == outcome(reference, body)


@given(st.lists(st.tuples(st.sampled_from("abc:"), VALUES), max_size=5), st.booleans())
def test_duplicate_keys_are_found(pairs: list[tuple[str, object]], escaped: bool) -> None:
    items = [f"{json.dumps(key)}:{json.dumps(value, ensure_ascii=escaped)}" for key, value in pairs]
    body = f"[{{{','.join(items)}}}]".encode()
    assert outcome(loads, body) == outcome(reference, body)
