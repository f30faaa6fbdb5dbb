"""Lines of a batch file, one by one and as they are read."""

import io
import json
from pathlib import Path

import pytest

from tests.local import TREE
from tundish.batchfile import BadLine, Fault, RawLine, Status, count, lines, parse, verdict

MOST = 1000
GOOD = b'{"custom_id": "a", "input": {"x": 1.50}}'


def test_an_input_is_carried_bit_for_bit() -> None:
    line, value = parse(RawLine(1, GOOD + b"\r\n", 0), MOST)
    assert (line.custom_id, bytes(line.input), value) == ("a", b'{"x": 1.50}', {"x": 1.5})


@pytest.mark.parametrize(
    ("text", "fault", "custom_id", "said"),
    [
        (b"\r\n", Fault.INVALID_JSON, None, "empty"),
        (b"\xef\xbb\xbf" + GOOD, Fault.INVALID_JSON, None, "byte order mark"),
        (b'{"custom_id": "a", "input": NaN}', Fault.INVALID_JSON, None, "NaN"),
        (b'{"custom_id": "a", "input": {"k": 1, "k": 2}}', Fault.INVALID_JSON, None, "duplicate key"),
        (b'{"custom_id": "a", "input": "\\ud800"}', Fault.INVALID_JSON, None, "surrogate"),
        (GOOD + GOOD, Fault.INVALID_JSON, None, "not JSON"),
        (b"[1]", Fault.INVALID_LINE, None, "expected `object`"),
        (b'{"custom_id": "a"}', Fault.INVALID_LINE, "a", "missing required field `input`"),
        (b'{"input": 1}', Fault.INVALID_LINE, None, "missing required field `custom_id`"),
        (b'{"custom_id": "a", "input": 1, "id": 2}', Fault.INVALID_LINE, "a", "unknown field `id`"),
        (b'{"custom_id": "", "input": 1}', Fault.INVALID_LINE, None, "length >= 1"),
        (b'{"custom_id": "a\\u0000", "input": 1}', Fault.INVALID_LINE, None, "custom_id"),
        (json.dumps({"custom_id": "x" * 513, "input": 1}).encode(), Fault.INVALID_LINE, None, "length <= 512"),
        (None, Fault.LINE_TOO_LARGE, None, "1000 bytes"),
    ],
)
def test_a_line_that_is_refused_says_why(text: bytes | None, fault: Fault, custom_id: str | None, said: str) -> None:
    with pytest.raises(BadLine, match=said) as refused:
        parse(RawLine(1, text, 0), MOST)
    assert (refused.value.fault, refused.value.custom_id) == (fault, custom_id)


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b"", []),
        (b"\n", [b"\n"]),
        (b"a\nb", [b"a\n", b"b"]),
        (b"a\r\n\nb\n", [b"a\r\n", b"\n", b"b\n"]),
        (b"a" * 5 + b"\n" + b"b" * 6 + b"\nc\n" + b"d" * 9_000_000, [b"a" * 5 + b"\n", None, b"c\n", None]),
        ("a\u2028b\x0bc\u0085d".encode(), [None]),
    ],
    ids=["empty", "one line end", "no last line end", "carriage return", "too long", "no other line ends"],
)
def test_lines_are_read_as_they_are_counted(body: bytes, read: list[bytes | None]) -> None:
    found = list(lines(io.BytesIO(body), 0, 0, 5))
    assert [line.text for line in found] == read
    assert [line.number for line in found] == list(range(1, len(read) + 1))
    assert count(io.BytesIO(body)) == len(read)
    assert not found or found[-1].end == len(body)


def test_reading_goes_on_from_the_end_of_any_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"".join(b"x" * (number % 9) + b"\n" for number in range(50)))
    with (tmp_path / "file").open("rb") as file:
        whole = list(lines(file, 0, 0, 6))
        for place, line in enumerate(whole, 1):
            file.seek(line.end)
            assert list(lines(file, line.number, line.end, 6)) == whole[place:]


def test_a_batch_ends_as_the_worst_that_was_done_to_it() -> None:
    assert verdict(broken=False, canceled=False, expired=False) is Status.SUCCEEDED
    assert verdict(broken=False, canceled=False, expired=True) is Status.EXPIRED
    assert verdict(broken=False, canceled=True, expired=True) is Status.CANCELED
    assert verdict(broken=True, canceled=True, expired=True) is Status.FAILED
    assert [status for status in Status if not status.terminal] == [Status.VALIDATING, Status.RUNNING]


def test_the_page_of_batch_files_names_every_code() -> None:
    codes = (TREE / "docs" / "batches.md").read_text().partition("## Codes")[2]
    assert not [fault for fault in Fault if f"`{fault}`" not in codes]
