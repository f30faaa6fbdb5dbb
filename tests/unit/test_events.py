"""Events: how they are written and framed, and what gives way where there is no room."""

import asyncio
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.streams import Page, Streams, frame
from tests.sse import parse
from tundish.events import (
    LARGEST,
    Kind,
    Position,
    Unfit,
    fields,
    fraction_of,
    log_data,
    piece_data,
    progress_of,
    said_by,
)
from tundish.ids import new_uuid
from workers.events import Buffer, Said

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(JSON)
@example("\u0085\u2028\u2029\v\f\x1c\x1d\x1e\r\n")
def test_a_piece_comes_out_of_its_frame_as_it_went_in(piece: Any) -> None:
    [event] = parse(frame(Kind.OUTPUT, piece_data(piece, 2), "2-7").decode().splitlines(keepends=True))
    assert (event.id, event.event, event.data) == ("2-7", "output", {"piece": piece, "attempt": 2})


def test_data_of_several_lines_is_one_event() -> None:
    for between in (b"\n", b"\r", b"\r\n"):
        [event] = parse(frame("status", b"{%b}" % between, "end").decode().splitlines(keepends=True))
        assert event.data == {}


@pytest.mark.parametrize(
    "piece",
    [b"bytes", {"deep": [b"bytes"]}, float("nan"), [float("inf")], object(), "\ud800", "x" * (LARGEST - 1)],
    ids=["bytes", "bytes within", "NaN", "infinity", "object", "surrogate", "too large"],
)
def test_a_piece_that_json_cannot_carry_is_refused(piece: Any) -> None:
    with pytest.raises(Unfit, match="a piece"):
        piece_data(piece, 1)


class Mute(dict[str, int]):
    """What an author's own type may be."""

    def items(self) -> Any:
        raise KeyError("none")

    def __str__(self) -> str:
        raise RuntimeError

    def __float__(self) -> float:
        raise RuntimeError


def test_nothing_that_a_model_says_fails_its_batch() -> None:
    for saying, wrong in ((partial(piece_data, attempt=1), Mute(a=1)), (fraction_of, Mute()), (fraction_of, 10**400)):
        with pytest.raises(Unfit):
            saying(wrong)
    assert json.loads(log_data(Mute())) == {"text": "Mute"}  # type: ignore[arg-type]  # that is the point


def test_a_piece_tells_its_run_from_the_second_on() -> None:
    assert json.loads(piece_data("a", 3)) == {"piece": "a", "attempt": 3}
    assert json.loads(piece_data("a", 3, 2)) == {"piece": "a", "attempt": 3, "run": 2}


def test_a_long_line_of_the_log_is_cut_between_two_letters() -> None:
    text = json.loads(log_data("é" * LARGEST + "\ud800"))["text"]
    assert text == "é" * (LARGEST // 2)
    assert json.loads(log_data("\ud800")) == {"text": "?"}


def test_progress_is_from_0_to_1() -> None:
    assert [fraction_of(each) for each in (-1, 0.25, True, "0.5", 7)] == [0.0, 0.25, 1.0, 0.5, 1.0]
    for wrong in (float("nan"), float("-inf"), "half", None):
        with pytest.raises(Unfit, match="from 0 to 1"):
            fraction_of(wrong)


def test_positions_go_by_attempt_then_by_number() -> None:
    assert Position.parse("2-1") > Position.parse("1-99") > Position(1, 9)
    assert str(Position.parse("10-123")) == "10-123"
    for wrong in ("", "1", "1-", "-1", "1-2-3", "01-1", "1-٣", "1-2\n", "end", "1-" + "9" * 19):
        with pytest.raises(ValueError, match="not the id"):
            Position.parse(wrong)


def said() -> Said:
    return Said(new_uuid(), 1)


def test_what_waits_comes_out_in_order_and_numbered() -> None:
    buffer, one, two = Buffer(), said(), said()
    for each, data in ((one, b"a"), (two, b"b"), (one, b"c")):
        assert buffer.put(each, Kind.OUTPUT, data)
    taken = buffer.take(2)
    assert [(each.said, each.number, each.data) for each in taken] == [(one, 1, b"a"), (two, 1, b"b")]
    assert [(each.number, each.data) for each in buffer.take(2)] == [(2, b"c")]
    assert not buffer.take(2)


def test_of_progress_only_the_latest_waits() -> None:
    buffer, job = Buffer(), said()
    for _ in range(3):
        assert buffer.put(job, Kind.PROGRESS)
    assert len(buffer.take(9)) == 1
    assert buffer.put(job, Kind.PROGRESS)
    assert [each.number for each in buffer.take(9)] == [2]


@pytest.mark.parametrize("buffer", [Buffer(room=4), Buffer(room_bytes=4)], ids=["events", "bytes"])
def test_logs_and_progress_give_way_before_pieces_and_the_numbers_show_what_was_dropped(buffer: Buffer) -> None:
    job, other = said(), said()
    kinds = (Kind.LOG, Kind.OUTPUT, Kind.LOG, Kind.OUTPUT, Kind.OUTPUT, Kind.OUTPUT)
    assert [buffer.put(job, kind, b"x") for kind in kinds] == [True, True, False, True, True, False]
    assert not buffer.put(other, Kind.LOG, b"x")
    assert [each.number for each in buffer.take(9)] == [1, 2, 4, 5]
    assert buffer.put(job, Kind.LOG, b"x")
    assert [each.number for each in buffer.take(9)] == [7]


@pytest.mark.parametrize("kind", [Kind.OUTPUT, Kind.LOG, Kind.PROGRESS])
@pytest.mark.parametrize("progress", [None, 0.0, 1 / 3])
def test_an_entry_tells_its_event_and_the_latest_progress(kind: Kind, progress: float | None) -> None:
    if kind is Kind.PROGRESS and progress is None:
        return
    data = b'{"progress":%b}' % str(progress).encode() if kind is Kind.PROGRESS else b"{}"
    entry = {name.encode(): str(each).encode() if isinstance(each, float) else each
             for name, each in fields(kind, data, progress).items()}  # fmt: skip
    assert (said_by(entry), progress_of(entry)) == ((kind, data), progress)


def test_a_read_that_fails_however_it_does_is_answered_and_the_next_one_is_made() -> None:
    entry = {name.encode(): each for name, each in fields(Kind.LOG, b"{}", None).items()}
    answers: list[Any] = [RuntimeError("the handler is closed"), [[(b"1-1", entry)]]]

    class Cut:
        def xrange(self, *_: object, **__: object) -> None:
            """Asked for with the others."""

        async def execute(self, **_: object) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    async def run() -> list[Page | None]:
        client: Any = SimpleNamespace(pipeline=lambda transaction: Cut())
        streams = Streams(client)
        running = asyncio.create_task(streams.run())
        pages = [await asyncio.wait_for(streams.after(new_uuid(), Position(0, 0), 1), 10) for _ in range(2)]
        running.cancel()
        return pages

    failed, page = asyncio.run(run())
    assert failed is None
    assert page
    assert page.last == Position(1, 1)


def test_events_are_forgotten_by_their_age_where_the_connection_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async def cut(*_: object) -> None:
        raise RuntimeError("the handler is closed")

    client: Any = SimpleNamespace(delete=cut)
    asyncio.run(Streams(client).forget(new_uuid()))
    assert "are kept for a while" in caplog.text
    assert "the handler is closed" in caplog.text
