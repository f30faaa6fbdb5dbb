"""The courier's policy: what becomes of a webhook after a try, and whose may be sent now."""

import asyncio
from email.utils import formatdate
from typing import Any, Literal
from uuid import UUID

import pytest

from tundish import store
from workers.courier import Courier
from workers.lanes import AT_ONCE, FIRST, FORGET, MOST, TRIPS_AFTER, Kind, Lanes, Looks
from workers.verdict import DELAYS, Answer, pause, verdict

NOW = 1_800_000_000.0
A, B = UUID(int=1), UUID(int=2)
GOOD, BAD = Answer(204), Answer(500)


def after(tries: int, answer: Answer, chance: float = 0.0) -> tuple[str, float | None, bool]:
    return tuple(verdict(tries, answer, now=NOW, chance=chance))  # type: ignore[return-value]  # a NamedTuple of these


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_alone_is_success(status: int) -> None:
    assert after(0, Answer(status)) == ("delivered", None, False)


@pytest.mark.parametrize("status", [100, 199, 300, 301, 304, 400, 404, 500, None])
def test_all_else_is_tried_again(status: int | None) -> None:
    assert after(0, Answer(status)) == ("pending", 5.0, False)


def test_an_answer_that_did_not_end_is_no_success() -> None:
    assert after(0, Answer(200, "no answer within 15 s"))[0] == "pending"


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    delays = [after(tries, BAD)[1] for tries in range(9)]
    assert delays == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert after(9, BAD) == ("dead", None, False)
    assert after(9, GOOD)[0] == "delivered"


@pytest.mark.parametrize("tries", range(len(DELAYS)))
def test_jitter_only_lengthens_a_delay(tries: int) -> None:
    shortest, longest = after(tries, BAD, 0.0)[1] or 0, after(tries, BAD, 0.999)[1] or 0
    assert DELAYS[tries] == shortest < longest < 1.2 * shortest


def test_410_ends_the_delivery_and_disables_its_endpoint() -> None:
    assert after(0, Answer(410)) == ("dead", None, True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (formatdate(NOW + 60, usegmt=True), 60.0),
        (formatdate(NOW - 60, usegmt=True), 5.0),
        ("3", 5.0),
        ("99999999999999999999999999", 86400.0),
        (formatdate(NOW + 10**8, usegmt=True), 86400.0),
        ("soon", 5.0),
        ("-5", 5.0),
        ("\u0663", 5.0),
        ("", 5.0),
        ("Mon, 99 Foo 2026 00:00:00 GMT", 5.0),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", 5.0),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", 5.0),
    ],
)
def test_retry_after_puts_a_delivery_off_within_bounds(header: str, seconds: float) -> None:
    assert after(0, Answer(503, None, header))[1] == pytest.approx(seconds, abs=1)


def test_retry_after_leaves_the_receiver_alone_for_a_while() -> None:
    assert pause(Answer(429, None, "10"), NOW) == 10.0
    assert pause(Answer(429, None, "100000"), NOW) == 300.0
    assert pause(Answer(429), NOW) == 0.0
    assert pause(Answer(200, None, "10"), NOW) == 0.0


def send(lanes: Lanes, lane: UUID, kind: Kind, answer: Answer | None, now: float, asked: float = 0.0) -> None:
    lanes.began(lane, kind, now)
    lanes.ended(lane, kind, answer, now=now, asked=asked)


def room(lanes: Lanes, lane: UUID, now: float, kind: Kind = Kind.FRESH) -> int:
    return lanes.rooms(kind, now)[lane]


def test_a_lane_has_a_cap_of_its_own_that_grows_with_success() -> None:
    lanes = Lanes()
    for _ in range(FIRST):
        lanes.began(A, Kind.FRESH, 0.0)
    lanes.began(B, Kind.FRESH, 0.0)
    assert lanes.rooms(Kind.FRESH, 0.0) == {A: 0, B: FIRST - 1}
    lanes.ended(A, Kind.FRESH, GOOD, now=0.0)
    assert room(lanes, A, 0.0) == 2
    for _ in range(100):
        send(lanes, B, Kind.FRESH, GOOD, 0.0)
    assert room(lanes, B, 0.0) == MOST - 1


def test_fresh_and_retried_never_take_each_others_room() -> None:
    lanes = Lanes()
    for _ in range(FIRST):
        lanes.began(A, Kind.RETRIED, 0.0)
    assert room(lanes, A, 0.0, Kind.RETRIED) == 0
    assert room(lanes, A, 0.0, Kind.FRESH) == FIRST
    assert lanes.free(Kind.RETRIED) == AT_ONCE[Kind.RETRIED] - FIRST
    assert lanes.free(Kind.FRESH) == AT_ONCE[Kind.FRESH]


def test_failures_in_a_row_open_the_breaker_and_a_success_closes_it() -> None:
    lanes = Lanes()
    for _ in range(TRIPS_AFTER - 1):
        send(lanes, A, Kind.FRESH, BAD, 0.0)
    assert room(lanes, A, 0.0) == FIRST
    send(lanes, A, Kind.FRESH, BAD, 0.0)
    assert room(lanes, A, 0.9) == 0
    assert room(lanes, A, 0.9, Kind.RETRIED) == 0
    assert room(lanes, A, 1.0) == 1
    lanes.began(A, Kind.FRESH, 1.0)
    assert room(lanes, A, 1.0) == 0
    assert room(lanes, A, 1.0, Kind.RETRIED) == 1
    lanes.ended(A, Kind.FRESH, GOOD, now=1.0)
    assert room(lanes, A, 1.0) == 2


def test_an_open_breaker_waits_longer_each_time_up_to_half_a_minute() -> None:
    lanes, now, waits = Lanes(), 0.0, []
    for _ in range(TRIPS_AFTER + 8):
        send(lanes, A, Kind.FRESH, BAD, now)
        wait = next(seconds for seconds in range(100) if room(lanes, A, now + seconds))
        waits.append(wait)
        now += wait
    assert waits[TRIPS_AFTER - 1 :] == [1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_what_was_on_its_way_when_the_breaker_opened_counts_once() -> None:
    lanes = Lanes()
    for _ in range(FIRST):
        lanes.began(A, Kind.FRESH, 0.0)
    for _ in range(FIRST):
        lanes.ended(A, Kind.FRESH, BAD, now=15.0)
    assert room(lanes, A, 16.0) == 1


def test_a_success_between_failures_keeps_the_breaker_closed() -> None:
    lanes = Lanes()
    for _ in range(3 * TRIPS_AFTER):
        send(lanes, A, Kind.FRESH, BAD, 0.0)
        send(lanes, A, Kind.FRESH, GOOD, 0.0)
    assert room(lanes, A, 0.0) > 0


@pytest.mark.parametrize("status", [429, 502, 504])
def test_a_receiver_with_too_much_to_do_is_throttled(status: int) -> None:
    lanes = Lanes()
    send(lanes, A, Kind.FRESH, Answer(status), 0.0)
    assert room(lanes, A, 0.9) == 0
    assert room(lanes, A, 1.0) == FIRST // 2
    send(lanes, A, Kind.FRESH, Answer(status), 1.0)
    assert room(lanes, A, 2.9) == 0
    assert room(lanes, A, 3.0) == FIRST // 4


def test_a_receiver_that_says_how_long_is_left_alone_so_long() -> None:
    lanes = Lanes()
    send(lanes, A, Kind.FRESH, Answer(503, None, "20"), 0.0, asked=20.0)
    assert room(lanes, A, 19.9) == 0
    assert room(lanes, A, 20.0) > 0
    send(lanes, A, Kind.FRESH, Answer(503, None, "300"), 20.0, asked=300.0)
    lanes.forget(20.0 + 2 * FORGET)
    assert room(lanes, A, 319.0) == 0


def test_what_was_not_sent_tells_nothing_of_the_receiver() -> None:
    lanes = Lanes()
    for _ in range(2 * TRIPS_AFTER):
        send(lanes, A, Kind.FRESH, None, 0.0)
    assert room(lanes, A, 0.0) == FIRST


def test_an_idle_lane_is_forgotten_and_a_busy_one_is_not() -> None:
    lanes = Lanes()
    send(lanes, A, Kind.FRESH, GOOD, 0.0)
    lanes.began(B, Kind.FRESH, 0.0)
    lanes.forget(1000.0)
    assert list(lanes.rooms(Kind.FRESH, 1000.0)) == [B]


def test_bells_that_ring_for_nothing_are_heeded_less_and_less() -> None:
    looks, gaps = Looks(), []
    for _ in range(10):
        looks.looked(found=False, rung=True, busy=0.0)
        gaps.append(looks.gap)
    assert gaps == sorted(gaps)
    assert gaps[-1] == looks.longest
    looks.looked(found=False, rung=False, busy=0.0)
    assert looks.gap == looks.shortest
    looks.looked(found=False, rung=True, busy=0.0)
    looks.looked(found=True, rung=True, busy=0.0)
    assert looks.gap == looks.shortest


def test_a_look_waits_for_room_for_many_the_more_is_on_its_way() -> None:
    lanes, looks, gaps = Lanes(), Looks(), []
    for _ in range(AT_ONCE[Kind.FRESH]):
        lanes.began(A, Kind.FRESH, 0.0)
        looks.looked(found=True, rung=True, busy=lanes.busy(Kind.FRESH))
        gaps.append(looks.gap)
    assert gaps == sorted(gaps)
    assert (gaps[0] < 2 * looks.shortest, gaps[-1]) == (True, looks.full)


class Bell(asyncio.Event):
    """Tells when somebody listens."""

    def __init__(self) -> None:
        super().__init__()
        self.listened = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.listened.set()
        return await super().wait()


def test_a_stop_that_comes_with_the_bell_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing_is_due(*_: object, **__: object) -> list[store.Due]:
        return []

    async def run() -> None:
        nobody: Any = None
        courier = Courier(nobody, nobody, nobody)
        bell = courier._bells[Kind.FRESH] = Bell()
        loop = asyncio.create_task(courier._take(Kind.FRESH))
        await bell.listened.wait()
        bell.set()
        loop.cancel()
        await asyncio.wait([loop], timeout=10)
        assert loop.cancelled()

    monkeypatch.setattr(store, "run", nothing_is_due)
    asyncio.run(run())
