"""Whose webhooks may be sent now: how much each receiver has on its way, and all of them together."""

from collections import Counter, deque
from uuid import UUID

import pytest

from workers.lanes import (
    AT_ONCE,
    DOUBLED,
    FIRST,
    FORGET,
    MOST,
    PATIENCE,
    SLOW_AT_ONCE,
    TRIPS_AFTER,
    Kind,
    Lanes,
    Looks,
)
from workers.verdict import Answer

A, B = UUID(int=1), UUID(int=2)
GOOD, BAD = Answer(204), Answer(500)


def send(lanes: Lanes, lane: UUID, kind: Kind, answer: Answer | None, now: float, asked: float = 0.0) -> None:
    lanes.began(lane, kind, now)
    lanes.ended(lane, kind, answer, now=now, asked=asked)


def proven(*ids: UUID) -> Lanes:
    """Lanes that have had successes."""
    lanes = Lanes()
    for id in ids:
        while room(lanes, id, 0.0) < DOUBLED:
            send(lanes, id, Kind.FRESH, GOOD, 0.0)
    return lanes


def room(lanes: Lanes, lane: UUID, now: float, kind: Kind = Kind.FRESH) -> int:
    quota = lanes.quota(kind, now, 1000)
    return {**quota.quick, **quota.others}.get(lane, quota.unknown)


def test_a_lane_has_a_cap_of_its_own_that_grows_with_success() -> None:
    lanes, rooms = Lanes(), []
    lanes.began(B, Kind.FRESH, 0.0)
    for _ in range(MOST):
        rooms.append(room(lanes, A, 0.0))
        send(lanes, A, Kind.FRESH, GOOD, 0.0)
    assert rooms[:6] == [FIRST, 4, 8, DOUBLED, DOUBLED + 1, DOUBLED + 2]
    assert rooms[-1] == MOST
    assert room(lanes, B, 0.0) == FIRST - 1


def test_fresh_and_retried_never_take_each_others_room() -> None:
    lanes = proven(A)
    before = lanes.quota(Kind.FRESH, 0.0, 1000)
    for _ in range(DOUBLED):
        lanes.began(A, Kind.RETRIED, 0.0)
    assert room(lanes, A, 0.0, Kind.RETRIED) == 0
    assert lanes.quota(Kind.RETRIED, 0.0, 1000).quick_limit == AT_ONCE[Kind.RETRIED] - DOUBLED
    assert lanes.quota(Kind.FRESH, 0.0, 1000) == before


def test_a_lane_is_quick_while_its_last_answer_was_good_and_the_next_comes_soon() -> None:
    lanes = Lanes()

    def quick(now: float) -> bool:
        return A in lanes.quota(Kind.FRESH, now, 1000).quick

    assert not quick(0.0)
    send(lanes, A, Kind.FRESH, GOOD, 0.0)
    assert quick(50.0)
    lanes.began(A, Kind.FRESH, 50.0)
    lanes.began(A, Kind.RETRIED, 50.0 + PATIENCE / 2)
    assert (quick(50.0 + 0.9 * PATIENCE), quick(50.0 + PATIENCE)) == (True, False)
    lanes.ended(A, Kind.FRESH, GOOD, now=52.0)
    assert (quick(52.0 + 0.9 * PATIENCE), quick(52.0 + PATIENCE)) == (True, False)
    lanes.ended(A, Kind.RETRIED, GOOD, now=55.0)
    send(lanes, A, Kind.FRESH, BAD, 55.0)
    assert not quick(55.0)
    send(lanes, A, Kind.FRESH, GOOD, 55.0)
    send(lanes, A, Kind.FRESH, Answer(429), 55.0)
    assert not quick(60.0)


#: A look at the outbox comes so many seconds after the one before.
STEP = 0.25
HANGING = [UUID(int=1000 + number) for number in range(1000)]


def began(
    lanes: Lanes, quick: list[UUID], hanging: list[UUID], seconds: float, at_last: Answer = BAD
) -> list[tuple[float, UUID]]:
    """What is set on its way, and when, as the courier does it: more waits in each lane than it has room for. `quick`
    ones answer by the next look, `hanging` ones after 15 s, and fail then unless `at_last` says otherwise."""
    sent, on_their_way, now = [], deque[tuple[float, UUID]](), 0.0
    turns = deque(sorted([*quick, *hanging]))
    while now < seconds:
        while on_their_way and on_their_way[0][0] <= now:
            lanes.ended(on_their_way.popleft()[1], Kind.FRESH, at_last, now=now, took=15.0)
        quota = lanes.quota(Kind.FRESH, now, 256)
        taken = [id for id, most in quota.quick.items() for _ in range(most)][: quota.quick_limit]
        left = quota.others_limit
        for _ in range(len(turns)):
            if left and turns[0] not in quota.quick:
                more = min(left, quota.others.get(turns[0], quota.unknown))
                taken += [turns[0]] * more
                left -= more
            if left:
                turns.rotate(-1)
        for id in taken:
            lanes.began(id, Kind.FRESH, now)
            sent.append((now, id))
            if id in quick:
                lanes.ended(id, Kind.FRESH, GOOD, now=now)
            else:
                on_their_way.append((now + 15.0, id))
        now += STEP
    return sent


def test_a_thousand_receivers_that_hang_keep_no_good_one_waiting() -> None:
    sent = Counter(at for at, id in began(proven(A), [A], HANGING, 60.0) if id == A)
    assert len(sent) == 60.0 / STEP
    assert min(sent.values()) >= DOUBLED


def test_a_new_receiver_has_its_turn_among_a_thousand_that_hang() -> None:
    last = UUID(int=5000)
    first = next(at for at, id in began(Lanes(), [last], HANGING, 100.0) if id == last)
    assert first <= 75.0


def test_receivers_that_hang_have_a_part_of_the_room() -> None:
    lanes = Lanes()
    assert len(began(lanes, [], HANGING, 14.0)) == SLOW_AT_ONCE[Kind.FRESH]
    assert lanes.quota(Kind.FRESH, 14.0, 1000).quick_limit == AT_ONCE[Kind.FRESH]


def test_good_receivers_that_begin_to_hang_leave_room_for_the_others() -> None:
    hanging = HANGING[: AT_ONCE[Kind.FRESH] // DOUBLED]
    sent = began(proven(*hanging, A), [A], hanging, 15.0)
    assert sum(id != A for _, id in sent) == AT_ONCE[Kind.FRESH]
    assert {at for at, id in sent if id == A} == {PATIENCE + n * STEP for n in range(round((15.0 - PATIENCE) / STEP))}


def test_what_was_on_its_way_lengthens_a_rest_that_was_asked_for_and_never_shortens_it() -> None:
    lanes = proven(A)
    for asked, rest in ((100.0, 100.0), (5.0, 100.0), (200.0, 200.0)):
        send(lanes, A, Kind.FRESH, Answer(429), 0.0, asked)
        assert (room(lanes, A, rest - 1), room(lanes, A, rest) > 0) == (0, True)


def test_a_lane_whose_answers_took_long_is_quick_again_once_they_come_soon() -> None:
    lanes = proven(A)

    def quick_after(took: float, answers: int) -> bool:
        for _ in range(answers):
            lanes.began(A, Kind.FRESH, 0.0)
            lanes.ended(A, Kind.FRESH, GOOD, now=0.0, took=took)
        return A in lanes.quota(Kind.FRESH, 0.0, 1000).quick

    assert not quick_after(15.0, 10)
    assert not quick_after(0.1, 10)
    assert quick_after(0.1, 100)


@pytest.mark.parametrize("count", [20, 200])
def test_receivers_that_succeed_slowly_keep_no_quick_one_waiting(count: int) -> None:
    """Many of one are on their way, so that an answer may come at each look."""
    slow = HANGING[:count]
    sent = began(proven(*slow, A), [A], slow, 120.0, GOOD)
    assert {at for at, id in sent if id == A and at >= 60.0} == {60.0 + n * STEP for n in range(round(60.0 / STEP))}


def test_all_that_is_on_its_way_is_bounded_though_lanes_turn_slow_and_quick_again() -> None:
    slow = HANGING[:12]
    lanes, all_of_it = proven(*slow, A), AT_ONCE[Kind.FRESH] + SLOW_AT_ONCE[Kind.FRESH]
    for id in slow:
        for _ in range(AT_ONCE[Kind.FRESH] // len(slow)):
            lanes.began(id, Kind.FRESH, 0.0)
    for _ in range(SLOW_AT_ONCE[Kind.FRESH]):
        lanes.began(A, Kind.FRESH, 2.0)
    quota = lanes.quota(Kind.FRESH, 2.0, all_of_it)
    assert (quota.quick_limit, quota.others_limit) == (0, 0)
    for id in slow:
        lanes.ended(id, Kind.FRESH, GOOD, now=2.0)
    quota = lanes.quota(Kind.FRESH, 2.0, all_of_it)
    assert (len(quota.quick), quota.others_limit) == (13, len(slow))


def test_failures_in_a_row_open_the_breaker_and_a_success_closes_it() -> None:
    lanes = proven(A)
    for _ in range(TRIPS_AFTER - 1):
        send(lanes, A, Kind.FRESH, BAD, 0.0)
    assert room(lanes, A, 0.0) == DOUBLED
    send(lanes, A, Kind.FRESH, BAD, 0.0)
    assert room(lanes, A, 0.9) == 0
    assert room(lanes, A, 0.9, Kind.RETRIED) == 0
    assert room(lanes, A, 1.0) == 1
    lanes.began(A, Kind.FRESH, 1.0)
    assert room(lanes, A, 1.0) == 0
    assert room(lanes, A, 1.0, Kind.RETRIED) == 1
    lanes.ended(A, Kind.FRESH, GOOD, now=1.0)
    assert room(lanes, A, 1.0) == 2


def test_all_that_a_new_lane_may_have_on_its_way_open_its_breaker() -> None:
    lanes = Lanes()
    for _ in range(FIRST):
        assert room(lanes, A, 0.0) == FIRST
        send(lanes, A, Kind.FRESH, BAD, 0.0)
    assert (room(lanes, A, 0.9), room(lanes, A, 1.0)) == (0, 1)


def test_an_open_breaker_waits_longer_each_time_up_to_half_a_minute() -> None:
    lanes, now, waits = proven(A), 0.0, []
    for _ in range(TRIPS_AFTER + 8):
        send(lanes, A, Kind.FRESH, BAD, now)
        wait = next(seconds for seconds in range(100) if room(lanes, A, now + seconds))
        waits.append(wait)
        now += wait
    assert waits[TRIPS_AFTER - 1 :] == [1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_what_was_on_its_way_when_the_breaker_opened_counts_once() -> None:
    lanes = proven(A)
    for _ in range(DOUBLED):
        lanes.began(A, Kind.FRESH, 0.0)
    for _ in range(DOUBLED):
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
    lanes = proven(A)
    send(lanes, A, Kind.FRESH, Answer(status), 0.0)
    assert room(lanes, A, 0.9) == 0
    assert room(lanes, A, 1.0) == DOUBLED // 2
    send(lanes, A, Kind.FRESH, Answer(status), 1.0)
    assert room(lanes, A, 2.9) == 0
    assert room(lanes, A, 3.0) == DOUBLED // 4


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
    assert list(lanes.quota(Kind.FRESH, 1000.0, 1000).others) == [B]
    assert lanes.quota(Kind.FRESH, 1000.0, 1000).quick == {}


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
    for _ in range(AT_ONCE[Kind.FRESH] + SLOW_AT_ONCE[Kind.FRESH]):
        lanes.began(A, Kind.FRESH, 0.0)
        looks.looked(found=True, rung=True, busy=lanes.busy(Kind.FRESH))
        gaps.append(looks.gap)
    assert gaps == sorted(gaps)
    assert (gaps[0] < 2 * looks.shortest, gaps[-1]) == (True, looks.full)
