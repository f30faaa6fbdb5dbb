"""The outbox against a real Postgres: what a move writes into it, and what the courier takes out, lane by lane."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from tests.integration.stored import claim, end, start, submit
from tests.local import wait_until
from tundish import outbox, store
from tundish.blobs import Directory
from tundish.codec import codec_for
from tundish.execute import Done, Failed, Outcome
from tundish.ids import floor_uuid, new_uuid
from tundish.job import Code, Priority, Status
from workers import record as recording
from workers.batch import Target
from workers.claim import Claim
from workers.predict import Prediction
from workers.record import Recorded, record
from workers.settle import Settler

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENDS = ["job.succeeded", "job.failed", "job.canceled"]
FIRST_LANE = UUID(int=0)


def endpoint(engine: store.Engine, events: Sequence[str] = ENDS, tenant: int = 1) -> store.Endpoint:
    new = store.Endpoint(new_uuid(), tenant, "https://example.com/hook", list(events))
    with engine.begin() as connection:
        assert store.add_endpoint(connection, new, SECRET, most=100)
    return new


def rows(engine: store.Engine, columns: str = "job, endpoint, event") -> list[tuple[Any, ...]]:
    with engine.begin() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM deliveries ORDER BY id"))]


def finish(engine: store.Engine, ids: Sequence[UUID], folder: Path, outcome: Outcome) -> Recorded:
    id, jobs = claim(engine, ids)
    prediction = Prediction(Claim(id, Target("m", "1"), jobs), 1.0, [outcome] * len(jobs), codec_for(str))
    blobs = Directory(folder, b"secret")
    with closing(store.Kept(store.autocommit(engine))) as kept:
        return record(kept, engine, blobs, [prediction], inline_max=100, public_url="")


def deliver(engine: store.Engine, lane: UUID, count: int = 1, body: bytes = b"{}", **given: Any) -> list[UUID]:
    new = [store.Delivery(new_uuid(), 1, lane, "ping", "https://example.com/", body, **given) for _ in range(count)]
    with engine.begin() as connection:
        store.deliver(connection, new)
    return [each.id for each in new]


def take(engine: store.Engine, *, retried: bool = False, **given: Any) -> list[store.Due]:
    rooms: dict[str, Any] = {"quick": {}, "quick_limit": 100, "others": {}, "unknown": 16, "others_limit": 100}
    with engine.begin() as connection:
        return store.take(connection, retried=retried, lease=30.0, **{"after": FIRST_LANE, **rooms, **given}).due


def settle(engine: store.Engine, due: store.Due, status: str, again_in: float | None = None) -> None:
    attempt = json.dumps({"at": "now", "status_code": 500, "error": None, "ms": 1})
    with engine.begin() as connection:
        store.settle(connection, [store.Settled(due.id, due.tries, due.give_up_at, attempt, status, again_in)])


def make_due(engine: store.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE deliveries SET next_at = now() WHERE status = 'pending'"))


def test_the_record_statement_writes_nothing_past_an_endpoint(engine: store.Engine) -> None:
    [id] = submit(engine)
    held, [job] = claim(engine, [id])
    endpoint(engine)
    with engine.begin() as connection:
        assert store.record(connection, [end(job)], [store.Ran(held, 1.0)], unheard_by={1}) == []
        assert store.renew(connection, [held], lease=30.0) == {held}
        assert store.record(connection, [end(job)], [store.Ran(held, 1.0)], unheard_by={2}) == [id]


@pytest.mark.parametrize("hinted", [False, True], ids=["first heard of", "heard of before"])
def test_an_end_is_told_to_the_endpoints_that_want_it(engine: store.Engine, tmp_path: Path, hinted: bool) -> None:
    recording._heard.clear()
    recording._heard.update({1} if hinted else ())
    wants, _, disabled, other = endpoint(engine), endpoint(engine, ["job.started"]), endpoint(engine), endpoint(engine)
    with engine.begin() as connection:
        store.change_endpoint(connection, 1, disabled.id, enabled=False)
        store.change_endpoint(connection, 1, other.id, events=["job.failed"])
    ids = submit(engine, 3)
    recorded = finish(engine, ids, tmp_path, Done(b"1", "application/json"))
    assert (sorted(recorded.ids), recorded.webhooks) == (ids, True)
    assert sorted(rows(engine)) == [(id, wants.id, "job.succeeded") for id in ids]
    assert recording._heard == {1}
    [failed] = submit(engine)
    finish(engine, [failed], tmp_path, Failed(Code.REJECTED, "no"))
    assert {row for row in rows(engine) if row[0] == failed} == {(failed, e.id, "job.failed") for e in (wants, other)}


def test_a_hint_that_is_out_of_date_costs_nothing_but_a_statement(engine: store.Engine, tmp_path: Path) -> None:
    recording._heard.add(1)
    for _ in range(2):
        [id] = submit(engine)
        recorded = finish(engine, [id], tmp_path, Done(b"1", "application/json"))
        assert (recorded.ids, recorded.webhooks) == ([id], False)
        assert rows(engine) == []
        assert recording._heard == set()


def test_endpoints_hear_of_their_own_tenant_alone(engine: store.Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name, webhook_secret) VALUES (2, 'b', :s)"), {"s": SECRET})
    endpoint(engine, tenant=2)
    [id] = submit(engine, tenant=1)
    assert finish(engine, [id], tmp_path, Done(b"1", "application/json")).ids == [id]
    assert rows(engine) == []


def test_a_start_is_told_where_somebody_wants_it(engine: store.Engine) -> None:
    [id] = submit(engine)
    held, _ = claim(engine, [id])
    with engine.begin() as connection:
        assert store.start(connection, held, lease=30.0) == store.Started(set(), heard=False)
    wants = endpoint(engine, ["job.started"])
    with engine.begin() as connection:
        assert store.start(connection, held, lease=30.0) == store.Started(set(), heard=True)
        outbox.announce_start(connection, [(id, 1)], "")
    [(job, told, event, body)] = rows(engine, "job, endpoint, event, body")
    assert (job, told, event) == (id, wants.id, "job.started")
    assert (json.loads(body)["type"], json.loads(body)["data"]["status"]) == ("job.started", "running")


def test_jobs_of_a_batch_file_and_shadows_tell_nothing_of_their_own(engine: store.Engine, tmp_path: Path) -> None:
    endpoint(engine)
    ids = submit(engine, 3)
    with engine.begin() as connection:
        for column, id in zip(("batch", "shadow_of"), ids, strict=False):
            connection.execute(text(f"UPDATE requests SET {column} = :id WHERE id = :id"), {"id": id})
    finish(engine, ids, tmp_path, Done(b"1", "application/json"))
    assert [row[0] for row in rows(engine)] == [ids[2]]


def test_a_body_is_under_20_kb_whatever_the_job_holds(engine: store.Engine) -> None:
    metadata = json.dumps({f"{n}": "\x01" * 120 for n in range(16)}).encode()
    new = store.NewJob(
        new_uuid(), 1, "m", "1", Priority.NORMAL, 60.0, "text/plain", 1, b"1", metadata=metadata, webhook="https://a/"
    )
    bare = store.NewJob(new_uuid(), 1, "m", "1", Priority.NORMAL, 60.0, "text/plain", 1, b"1", webhook="https://a/")
    with engine.begin() as connection:
        store.submit(connection, [new, bare])
    held, jobs = claim(engine, [new.id, bare.id])
    assert start(engine, held)
    fault = json.dumps({"code": "model_error", "message": "m" * 50_000, "retryable": False}).encode()
    ends = [store.Finished(new.id, 1, Status.FAILED, error=fault)]
    ends.append(store.Finished(bare.id, 1, Status.SUCCEEDED, "application/json", json.dumps("x" * 16_000).encode()))
    with engine.begin() as connection:
        store.record(connection, ends, [store.Ran(held, 1.0)])
        outbox.announce(connection, [(job.id, 1) for job in jobs], "")
    bodies = {job: json.loads(body) for job, body in rows(engine, "job, body")}
    assert all(size < 20_000 for (size,) in rows(engine, "length(body)"))
    assert bodies[new.id]["data"]["error"]["message"].startswith("mmm")
    assert len(bodies[bare.id]["data"]["output"]) == 16_000


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


def test_what_was_not_delivered_is_counted_by_its_state(engine: store.Engine) -> None:
    def counts(**given: int) -> dict[str, int]:
        with engine.begin() as connection:
            found = store.undelivered(connection, **given)
        assert [each.state for each in found] == ["fresh", "retried", "dead"]
        assert all((each.oldest_s > 0) == (each.number > 0) for each in found)
        return {each.state: each.number for each in found}

    assert counts() == {"fresh": 0, "retried": 0, "dead": 0}
    deliver(engine, new_uuid(), 6)
    for due, (status, again_in) in zip(
        take(engine), [("delivered", None), ("dead", None), ("pending", 60.0)] * 2, strict=True
    ):
        settle(engine, due, status, again_in)
    deliver(engine, new_uuid(), 3)
    assert counts() == {"fresh": 3, "retried": 2, "dead": 2}
    assert counts(most=2) == {"fresh": 2, "retried": 2, "dead": 2}


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


def test_urls_of_one_receiver_share_a_lane_whatever_follows_its_name() -> None:
    urls = ("/", "/a", "/b?c=/d", "", "?a=1", "?b=2", "#c")
    assert len({outbox.lane(1, f"https://{host}{rest}") for rest in urls for host in ("a.example", "A.example")}) == 1
    others = {
        (1, "https://a.example:8443/"),
        (1, "http://a.example/"),
        (1, "https://b.example/"),
        (2, "https://a.example/"),
    }
    assert len({outbox.lane(*each) for each in others}) == 4


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
        assert store.bury(connection, "late") == 1
    assert dict(rows(engine, "id, status")) == {old: "dead", replayed: "pending", asked: "pending", young: "pending"}


def test_the_log_is_read_by_status_endpoint_and_job(engine: store.Engine) -> None:
    a, b, job = endpoint(engine), endpoint(engine), new_uuid()
    ids = [deliver(engine, each.id, endpoint=each.id, job=one)[0] for each, one in ((a, job), (a, None), (b, job))]
    everything = {"before": UUID(int=(1 << 128) - 1), "since": UUID(int=0)}
    for due in take(engine):
        if due.id == ids[1]:
            settle(engine, due, "dead")

    def found(budget: int = 2000, tenant: int = 1, **given: Any) -> tuple[list[UUID], UUID | None]:
        with engine.begin() as connection:
            search = store.DeliverySearch(**{**everything, **given})
            listing = store.list_deliveries(connection, tenant, search, budget)
        return [row.id for row in listing.deliveries], listing.next_before

    assert found() == (ids[::-1], None)
    assert found(tenant=2) == ([], None)
    assert found(job=job) == ([ids[2], ids[0]], None)
    assert found(job=job, limit=1) == ([ids[2]], ids[2])
    assert found(endpoint=a.id) == ([ids[1], ids[0]], None)
    assert found(status="dead") == ([ids[1]], None)
    assert found(status="dead", endpoint=b.id) == ([], None)
    assert found(status="pending", limit=1) == ([ids[2]], ids[2])
    assert found(status="pending", before=ids[2]) == ([ids[0]], None)
    assert found(status="delivered", budget=2) == ([], ids[1])
    batch = new_uuid()
    told = deliver(engine, batch, batch=batch)
    assert found(batch=batch) == (told, None)
    assert found(batch=batch, job=job) == ([], None)


def test_a_page_of_the_log_ends_where_its_look_ended_whatever_comes_meanwhile(engine: store.Engine) -> None:
    a, b = endpoint(engine), endpoint(engine)
    ids = [deliver(engine, each.id, endpoint=each.id)[0] for each in (b, a, a, b, b)]
    pages: list[list[UUID]] = []

    def more(*_: object) -> None:
        """Two of them, behind the first statement of each page."""
        if not pages[-1]:
            pages[-1] = [b.id]  # not behind its own
            pages[-1] = deliver(engine, b.id, 2, endpoint=b.id)

    event.listen(engine, "after_cursor_execute", more)
    found: list[UUID] = []
    before: UUID | None = UUID(int=(1 << 128) - 1)
    while before:
        pages.append([])
        with engine.begin() as connection:
            search = store.DeliverySearch(before, UUID(int=0), endpoint=a.id)
            listing = store.list_deliveries(connection, 1, search, budget=4)
        found += [row.id for row in listing.deliveries]
        before = listing.next_before
    assert [len(came) for came in pages] == [2, 2]
    assert found == [ids[2], ids[1]]


def test_a_replay_has_the_same_id_and_body_and_a_new_schedule(engine: store.Engine) -> None:
    [id] = deliver(engine, new_uuid(), body=b"as it was")
    [due] = take(engine)
    settle(engine, due, "dead")
    with engine.begin() as connection:
        assert store.replay(connection, 2, id) is None
        row = store.replay(connection, 1, id)
    assert row
    assert (row.id, row.status, len(row.attempts)) == (id, "pending", 1)
    [again] = take(engine, retried=True)
    assert (again.id, again.body, again.tries) == (id, b"as it was", 0)


def test_a_try_that_was_on_its_way_before_a_replay_decides_nothing(engine: store.Engine) -> None:
    [id] = deliver(engine, new_uuid())
    [before] = take(engine)
    with engine.begin() as connection:
        assert store.replay(connection, 1, id)
    [replayed] = take(engine, retried=True)
    settle(engine, before, "dead")
    assert rows(engine, "status, tries") == [("pending", 0)]
    settle(engine, replayed, "delivered")
    assert rows(engine, "status, tries") == [("delivered", 1)]


def test_a_job_goes_with_its_settled_webhooks(engine: store.Engine, tmp_path: Path) -> None:
    endpoint(engine)
    ids = submit(engine, 2)
    finish(engine, ids, tmp_path, Done(b"1", "application/json"))
    sent = next(due for due in take(engine) if dict(rows(engine, "id, job"))[due.id] == ids[0])
    settle(engine, sent, "delivered")
    with engine.begin() as connection:
        assert all(store.delete(connection, 1, id, "") for id in ids)
    assert rows(engine, "job") == [(ids[1],)]


def test_settled_webhooks_are_forgotten_where_the_retention_is_under_a_day(engine: store.Engine) -> None:
    deliver(engine, new_uuid(), 3)
    for due in take(engine)[:2]:
        settle(engine, due, "delivered")
    with engine.begin() as connection:
        assert store.forget_deliveries(connection, UUID(int=1)) == 0
        assert store.forget_deliveries(connection, new_uuid(), limit=1) == 1
        assert store.forget_deliveries(connection, new_uuid()) == 1
    assert rows(engine, "status") == [("pending",)]


def test_the_number_of_endpoints_is_bounded(engine: store.Engine) -> None:
    new = [store.Endpoint(new_uuid(), 1, "https://example.com/", ["job.failed"]) for _ in range(3)]
    with engine.begin() as connection:
        assert [store.add_endpoint(connection, each, SECRET, most=2) for each in new] == [True, True, False]
        assert [each.id for each in store.endpoints(connection, 1, before=UUID(int=(1 << 128) - 1), limit=9)] == [
            new[1].id,
            new[0].id,
        ]
        assert store.endpoint(connection, 2, new[0].id) is None


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
