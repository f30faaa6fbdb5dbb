"""The courier's policy: what becomes of a webhook after a try, and whose may be sent now."""

import asyncio
import logging
from collections import Counter, deque
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID

import pytest

from tundish import store
from workers.courier import ROWS, Courier
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


def test_a_url_that_no_later_try_would_mend_is_tried_once() -> None:
    assert after(0, Answer(None, "the URL must be https on port 443", final=True)) == ("dead", None, False)


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


class Bell(asyncio.Event):
    """Tells when somebody listens."""

    def __init__(self) -> None:
        super().__init__()
        self.listened = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.listened.set()
        return await super().wait()


def test_a_stop_that_comes_with_the_bell_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing_is_due(*_: object, **__: object) -> store.Taken:
        return store.Taken([])

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


def test_a_connection_to_redis_that_is_cut_ends_no_courier_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It shows as an error of the event loop where it is cut within a write."""
    cuts = [RuntimeError("the handler is closed"), ConnectionResetError()]

    class Cut:
        async def __aenter__(self) -> "Cut":
            return self

        async def __aexit__(self, *_: object) -> None:
            """Nothing is left."""

        async def subscribe(self, *_: object) -> None:
            if cuts:
                raise cuts.pop(0)

        async def get_message(self, **_: object) -> object:
            await asyncio.sleep(0)
            return {"data": b""}

    async def run() -> None:
        nobody: Any = None
        client: Any = SimpleNamespace(pubsub=lambda **_: Cut())
        courier = Courier(nobody, nobody, client)
        loop = asyncio.create_task(courier._listen())
        heard = asyncio.create_task(courier._bells[Kind.FRESH].wait())
        await asyncio.wait([loop, heard], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        loop.cancel()
        assert heard.done()

    monkeypatch.setattr("workers.courier.RETRY", 0.0)
    with caplog.at_level(logging.INFO, "workers.courier"):
        asyncio.run(run())
    waits, goes_on = caplog.messages
    assert "has to wait: they are found by looking, Redis does not answer: " in waits
    assert goes_on == "the notice of new webhooks goes on, after 0 s"


def test_lanes_have_their_turn_though_there_is_no_room_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [UUID(int=number) for number in range(1, 1000)]

    async def run() -> None:
        nobody: Any = None
        asked, first = asyncio.Queue[UUID](), asyncio.Event()

        class Hanging:
            async def send(self, due: store.Due) -> Answer:
                await (first if due.lane == lanes[0] else asyncio.Event()).wait()
                return BAD

        async def many_are_due(*_: object, after: UUID, others_limit: int, **given: Any) -> store.Taken:
            asked.put_nowait(after)
            rooms = [(lane, given["others"].get(lane, given["unknown"])) for lane in lanes if lane > after]
            due = [store.Due(lane, lane, None, "", b"", 0, "", [], True) for lane, room in rooms for _ in range(room)]
            page = due[:others_limit]
            return store.Taken(page, page[-1].lane if page else None)

        monkeypatch.setattr(store, "run", many_are_due)
        hanging: Any = Hanging()
        courier = Courier(nobody, hanging, nobody)
        bell = courier._bells[Kind.FRESH] = Bell()
        loop = asyncio.create_task(courier._take(Kind.FRESH))
        pages = [await asyncio.wait_for(asked.get(), 10) for _ in range(2)]
        await asyncio.wait_for(bell.listened.wait(), 10)  # it has looked once more, and found no room
        first.set()
        pages.append(await asyncio.wait_for(asked.get(), 10))
        loop.cancel()
        assert pages == [UUID(int=0), lanes[ROWS // FIRST - 1], lanes[SLOW_AT_ONCE[Kind.FRESH] // FIRST - 1]]

    asyncio.run(run())


def test_a_walk_that_finds_nothing_goes_on_where_it_stopped_and_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stops = [UUID(int=number) for number in (5, 9)]

    async def run() -> None:
        nobody: Any = None
        asked = asyncio.Queue[UUID]()

        async def none_is_due(*_: object, after: UUID, **__: object) -> store.Taken:
            asked.put_nowait(after)
            return store.Taken([], next((stop for stop in stops if stop > after), None))

        monkeypatch.setattr(store, "run", none_is_due)
        courier = Courier(nobody, nobody, nobody)
        bell = courier._bells[Kind.RETRIED] = Bell()
        loop = asyncio.create_task(courier._take(Kind.RETRIED))
        for after in (UUID(int=0), *stops, UUID(int=0)):
            assert await asyncio.wait_for(asked.get(), 10) == after
            if after != stops[-1]:  # there the walk has come round
                await asyncio.wait_for(bell.listened.wait(), 10)
                bell.listened.clear()
                bell.set()
        loop.cancel()

    asyncio.run(run())


def test_a_stop_ends_though_postgres_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written down is sent again."""

    async def is_away(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    async def run() -> None:
        nobody: Any = None
        courier, stopped = Courier(nobody, nobody, nobody), asyncio.Event()
        courier._settler.add(store.Settled(A, 0, "", "{}", "delivered"))
        stopped.set()
        await asyncio.wait_for(courier.run(stopped, 0.1), 10)

    monkeypatch.setattr(store, "run", is_away)
    monkeypatch.setattr("workers.courier.WRITE", 0.1)
    asyncio.run(run())
