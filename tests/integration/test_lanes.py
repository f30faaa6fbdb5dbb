"""What the courier takes out of a real Postgres, lane by lane, and what it writes down."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from api import deliveries
from tests.integration.delivered import (
    FIRST_LANE,
    SECRET,
    deliver,
    endpoint,
    make_due,
    rows,
    settle,
    take,
)
from tests.local import wait_until
from tundish import store
from tundish.ids import floor_uuid, new_uuid
from tundish.settings import Settings
from tundish.view import rfc3339
from workers.chores import Tools, bury
from workers.settle import Settler


def test_a_lane_without_room_is_stepped_over_however_much_waits_in_it(engine: store.Engine) -> None:
    full, open = new_uuid(), new_uuid()
    deliver(engine, full, 50)
    wanted = deliver(engine, open, 3)
    assert [due.id for due in take(engine, others={full: 0})] == wanted
    assert len(take(engine, others={full: 5})) == 5
    assert len(take(engine, unknown=7)) == 7


def test_quick_lanes_and_the_others_have_limits_of_their_own(engine: store.Engine) -> None:
    quick, others = [new_uuid() for _ in range(3)], sorted(new_uuid() for _ in range(4))
    for lane in (*quick, *others):
        deliver(engine, lane, 10)
    rooms = {quick[1]: 4, quick[0]: 0, quick[2]: 4}
    taken = take(engine, quick=rooms, quick_limit=6, unknown=2, others_limit=3)
    assert Counter(due.lane for due in taken) == {quick[1]: 4, quick[2]: 2, others[0]: 2, others[1]: 1}
    taken = take(engine, quick=rooms, quick_limit=0, unknown=2, others_limit=3, after=others[1])
    assert Counter(due.lane for due in taken) == {others[2]: 2, others[3]: 1}
    taken = take(engine, quick=rooms, quick_limit=100, others_limit=0)
    assert Counter(due.lane for due in taken) == {quick[1]: 4, quick[2]: 4}


def test_each_lane_has_its_turn(engine: store.Engine) -> None:
    lanes = sorted(new_uuid() for _ in range(4))
    for lane in lanes:
        deliver(engine, lane, 10)
    first = take(engine, unknown=2, others_limit=3)
    assert [due.lane for due in first] == [lanes[0], lanes[0], lanes[1]]
    second = take(engine, unknown=2, others_limit=3, after=first[-1].lane)
    assert [due.lane for due in second] == [lanes[2], lanes[2], lanes[3]]


def test_what_is_taken_is_nobody_elses_until_its_lease_runs_out(engine: store.Engine) -> None:
    [id] = deliver(engine, new_uuid(), body=b"bytes")
    [due] = take(engine)
    assert (due.id, due.body, due.tries, due.wanted) == (id, b"bytes", 0, True)
    assert take(engine) == []
    make_due(engine)
    assert [again.id for again in take(engine)] == [id]


def test_fresh_and_retried_are_taken_apart(engine: store.Engine) -> None:
    lane = new_uuid()
    deliver(engine, lane)
    [due] = take(engine)
    settle(engine, due, "pending", 0.0)
    [fresh] = deliver(engine, lane)
    assert [each.id for each in take(engine)] == [fresh]
    [again] = take(engine, retried=True)
    assert (again.id, again.tries) == (due.id, 1)


def test_what_was_settled_by_another_is_left_as_it_is(engine: store.Engine) -> None:
    deliver(engine, new_uuid())
    [slow] = take(engine)
    make_due(engine)
    [quick] = take(engine)
    settle(engine, quick, "pending", 60.0)
    settle(engine, slow, "delivered")
    assert rows(engine, "status, tries, json_array_length(attempts)") == [("pending", 1, 1)]
    make_due(engine)
    [again] = take(engine, retried=True)
    settle(engine, again, "delivered")
    assert rows(engine, "status, tries, json_array_length(attempts), next_at") == [("delivered", 2, 2, None)]


def test_a_rotated_secret_signs_beside_the_new_one_for_a_day(engine: store.Engine) -> None:
    wants = endpoint(engine)
    deliver(engine, wants.id, endpoint=wants.id)
    deliver(engine, new_uuid())
    with engine.begin() as connection:
        default = store.default_secret(connection, 1)
        assert store.rotate_secret(connection, 1, wants.id, "whsec_AAAA")
        assert store.rotate_secret(connection, 1, wants.id, "whsec_BBBB")
        assert store.rotate_secret(connection, 2, wants.id, "whsec_CCCC") is None
        store.rotate_default_secret(connection, 1, "whsec_DDDD")
    secrets = {due.endpoint: due.secrets for due in take(engine)}
    assert secrets == {wants.id: ["whsec_BBBB", "whsec_AAAA", SECRET], None: ["whsec_DDDD", default]}
    with engine.begin() as connection:
        connection.execute(text('UPDATE endpoints SET retired = \'[{"secret": "old", "until": 1}]\''))
    make_due(engine)
    assert {due.endpoint: due.secrets for due in take(engine)}[wants.id] == ["whsec_BBBB"]


def test_what_waits_for_an_endpoint_goes_where_that_is_now(engine: store.Engine) -> None:
    moved, gone = endpoint(engine), endpoint(engine)
    for each in (moved, gone):
        deliver(engine, each.id, endpoint=each.id)
    with engine.begin() as connection:
        store.change_endpoint(connection, 1, moved.id, url="https://example.com/new")
        assert store.remove_endpoint(connection, 1, gone.id)
        assert not store.remove_endpoint(connection, 1, gone.id)
    found = {due.endpoint: (due.url, due.wanted) for due in take(engine)}
    assert found == {moved.id: ("https://example.com/new", True), gone.id: ("https://example.com/", False)}


def test_what_waited_for_four_days_is_a_dead_letter(engine: store.Engine) -> None:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=5)
    low, high = floor_uuid(day), floor_uuid(day + timedelta(days=1))
    with engine.begin() as connection:
        bounds = f"FROM ('{low}') TO ('{high}')"
        connection.execute(text(f"CREATE TABLE deliveries_old PARTITION OF deliveries FOR VALUES {bounds}"))
    old, replayed, asked, young = *(UUID(int=low.int + number) for number in (1, 2, 3)), new_uuid()
    new = [store.Delivery(id, 1, id, "ping", "https://example.com/", b"{}") for id in (old, replayed, asked, young)]
    with engine.begin() as connection:
        store.deliver(connection, new)
        late = text("UPDATE deliveries SET give_up_at = now() - interval '1 s' WHERE id <> :id")
        connection.execute(late, {"id": replayed})
        on_its_way = text("UPDATE deliveries SET next_at = now() + interval '30 s' WHERE id = :id")
        connection.execute(on_its_way, {"id": asked})
    assert bury.run(Tools(Settings(), engine, None, None)) == 1  # type: ignore[arg-type]  # it needs no more
    assert dict(rows(engine, "id, status")) == {old: "dead", replayed: "pending", asked: "pending", young: "pending"}
    with engine.begin() as connection:
        dead = store.delivery(connection, 1, old)
    assert dead
    [attempt] = deliveries.shown(dead).attempts
    assert (attempt.status_code, (attempt.error or "")[:20], attempt.ms) == (None, "given up after 4 day", 0)
    assert attempt.at == rfc3339(datetime.fromisoformat(attempt.at)), "as any other time"


def test_what_was_sent_is_written_down_though_its_write_was_cancelled(database_url: str, engine: store.Engine) -> None:
    lane = new_uuid()
    deliver(engine, lane)
    [due] = take(engine)

    async def run() -> None:
        async_engine = store.async_engine(database_url, 1)
        settler = Settler(async_engine)
        settler.add(store.Settled(due.id, due.tries, due.give_up_at, '{"at": "now"}', "delivered"))
        with engine.begin() as other:  # the write has to wait for this
            other.execute(text("SELECT 1 FROM deliveries FOR UPDATE"))
            writing = asyncio.create_task(settler.write())
            await asyncio.to_thread(wait_until, lambda: waits(engine), "the write waits")
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        await settler.write()
        await async_engine.dispose()

    asyncio.run(run())
    assert rows(engine, "status") == [("delivered",)]


def waits(engine: store.Engine) -> bool:
    with engine.begin() as connection:
        held = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(connection.execute(held).scalar_one())


def test_a_statement_walks_a_number_of_lanes_and_the_next_goes_on_behind_them(
    engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many wait for their next try as there are receivers."""
    monkeypatch.setattr("tundish.store.courier.LANES", 3)
    lanes = [UUID(int=number) for number in range(1, 9)]
    for lane in lanes:
        deliver(engine, lane)
    with engine.begin() as connection:
        later = text("UPDATE deliveries SET next_at = now() + interval '1 hour' WHERE lane <> ALL(:due)")
        connection.execute(later, {"due": [lanes[1], lanes[6]]})
    rooms: dict[str, Any] = {"quick": {}, "quick_limit": 9, "others": {}, "unknown": 9, "lease": 30.0}

    def walk(after: UUID, limit: int = 9) -> tuple[list[UUID], UUID | None]:
        with engine.begin() as connection:
            taken = store.take(connection, retried=False, after=after, others_limit=limit, **rooms)
        return [due.lane for due in taken.due], taken.stopped

    assert walk(FIRST_LANE, 1) == ([lanes[1]], lanes[1]), "the page is full before"
    assert walk(lanes[1]) == ([], lanes[4])
    assert walk(lanes[4]) == ([lanes[6]], lanes[7])
    assert walk(lanes[7]) == ([], None)
    assert walk(lanes[5], 0) == ([], None)
