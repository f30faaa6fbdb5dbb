"""The log of webhooks against a real Postgres: what is shown, counted, replayed and forgotten."""

from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import event, text

from tests.integration.delivered import (
    deliver,
    endpoint,
    finish,
    rows,
    settle,
    take,
)
from tests.integration.stored import submit
from tundish import store
from tundish.ids import new_uuid
from tundish.outcome import Done


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


def test_a_replay_has_the_same_id_and_body_and_a_new_schedule(engine: store.Engine) -> None:
    [id] = deliver(engine, new_uuid(), body=b"as it was")
    [due] = take(engine)
    settle(engine, due, "dead")
    with engine.begin() as connection:
        assert store.replay(connection, 2, id, since=store.FIRST) is None
        row = store.replay(connection, 1, id, since=store.FIRST)
    assert row
    assert (row.id, row.status, len(row.attempts)) == (id, "pending", 1)
    [again] = take(engine, retried=True)
    assert (again.id, again.body, again.tries) == (id, b"as it was", 0)


def test_a_try_that_was_on_its_way_before_a_replay_decides_nothing(engine: store.Engine) -> None:
    [id] = deliver(engine, new_uuid())
    [before] = take(engine)
    with engine.begin() as connection:
        assert store.replay(connection, 1, id, since=store.FIRST)
    [replayed] = take(engine, retried=True)
    settle(engine, before, "dead")
    assert rows(engine, "status, tries") == [("pending", 0)]
    settle(engine, replayed, "delivered")
    assert rows(engine, "status, tries") == [("delivered", 1)]


def test_a_delivery_lives_as_long_when_it_is_new_and_when_it_is_replayed(engine: store.Engine) -> None:
    [id] = deliver(engine, new_uuid())
    assert rows(engine, "give_up_at - next_at") == [(store.LIFE,)], "as the table has it"
    with engine.begin() as connection:
        connection.execute(text("UPDATE deliveries SET give_up_at = now()"))
        assert store.replay(connection, 1, id, since=store.FIRST)
    assert rows(engine, "give_up_at - next_at") == [(store.LIFE,)]


def test_what_was_owed_of_a_deleted_job_is_sent_and_not_replayed(engine: store.Engine, tmp_path: Path) -> None:
    endpoint(engine)
    ids = submit(engine, 2)
    finish(engine, ids, tmp_path, Done(b"1", "application/json"))
    jobs = dict(rows(engine, "id, job"))
    with engine.begin() as connection:
        assert store.delete(connection, 1, ids[0])
    owed = take(engine)
    assert {jobs[due.id] for due in owed} == {*ids}
    for due in owed:
        settle(engine, due, "delivered")
    with engine.begin() as connection:
        for id, job in jobs.items():
            assert bool(store.replay(connection, 1, id, since=store.FIRST)) == (job == ids[1])
            assert store.replay(connection, 1, id, since=new_uuid()), "its job may have come of age"


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
