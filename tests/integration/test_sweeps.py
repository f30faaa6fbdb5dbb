"""What the chores find in the store: lost messages, what is behind the marks, what is past its retention."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.integration.stored import QUEUE, claim, end, let_expire, read, start, submit
from tests.local import wait_until
from tundish import store
from tundish.ids import floor_uuid, new_uuid
from tundish.job import Priority
from tundish.settings import Settings
from workers.chores import Tools, partitions, survey


def sent_at(connection: store.Connection, id: UUID) -> datetime:
    at: datetime = connection.execute(text("SELECT sent_at FROM jobs WHERE id = :id"), {"id": id}).scalar_one()
    return at


def test_lost_messages_are_found_and_a_long_backlog_is_not(engine: store.Engine) -> None:
    ids = submit(engine, 3)
    with engine.begin() as connection:
        first = sent_at(connection, ids[0])
        [(queue, seen)] = store.survey(connection, new_uuid()).items()
        assert (queue, seen.sent_at) == (QUEUE, first)
        assert store.unsent(connection, QUEUE, low=ids[0], before=first) == []
    with engine.begin() as connection:
        later = first + timedelta(seconds=1)
        lost = store.unsent(connection, QUEUE, low=ids[0], high=ids[1], before=later)
        assert sorted(job.id for job in lost) == ids[:2]


@pytest.mark.parametrize("step", [timedelta(milliseconds=1), timedelta(days=1)])
def test_marks_bound_the_sweeps_and_pass_no_open_job(engine: store.Engine, step: timedelta) -> None:
    ids = submit(engine, 5)
    claimed, jobs = claim(engine, ids[:1])
    with engine.begin() as connection:
        store.record(connection, [end(jobs[0])], [store.Ran(claimed, 1.5)])
        connection.execute(text("UPDATE jobs SET priority = 0, expires_at = 'epoch' WHERE id = :id"), {"id": ids[3]})
        found = store.survey(connection, new_uuid(), step=step)
        assert {queue: seen.low for queue, seen in found.items()} == {
            QUEUE: ids[1],
            replace(QUEUE, priority=Priority.HIGH): ids[3],
        }
        assert store.low_water(connection) == ids[1]
        waiting = {each.queue.priority: each for each in store.backlog(connection)}
        assert {priority: each.queued for priority, each in waiting.items()} == {Priority.NORMAL: 3, Priority.HIGH: 1}
        assert 0 <= waiting[Priority.NORMAL].oldest_s < 60
        assert store.expire(connection, b"{}") == [(ids[3], 1)]


def test_what_is_known_of_older_jobs_stands_until_the_next_whole_look(engine: store.Engine) -> None:
    old, new = submit(engine, 2)
    with engine.begin() as connection:
        [seen] = store.survey(connection, new).values()
        assert (seen.low, seen.sent_at) == (old, sent_at(connection, old))
        connection.execute(text("UPDATE jobs SET status = 2 WHERE id = :id"), {"id": old})
        [known] = store.survey(connection, new, since=new).values()
        assert (known.low, known.expires_at) == (old, seen.expires_at)
        [whole] = store.survey(connection, new).values()
        assert (whole.low, whole.sent_at) == (new, sent_at(connection, new))
        connection.execute(text("UPDATE jobs SET status = 2"))
        assert store.survey(connection, new_uuid()) == {}
        assert store.survey(connection, new_uuid(), since=old) == {}, "an idle queue is not taken for a busy one"


def test_a_job_that_comes_back_after_the_look_expires_in_time(engine: store.Engine) -> None:
    first, second = submit(engine, 2)
    claimed, _ = claim(engine, [first])
    assert start(engine, claimed)
    let_expire(engine, first)
    with engine.begin() as connection:
        assert store.expire(connection, b"{}") == [], "it runs"
        assert connection.execute(text("SELECT expires_at > now() FROM marks")).scalar(), "nor is it looked for again"
    with engine.begin() as connection:
        store.release(connection, [claimed])
        store.survey(connection, new_uuid())
        assert store.expire(connection, b"{}") == [(first, 1)]
        assert store.expire(connection, b"{}") == []
    assert read(engine, second)


def test_the_marks_go_by_the_databases_clock(slow_clock: None, engine: store.Engine) -> None:
    def submit() -> None:
        id = UUID(int=floor_uuid(datetime.now(UTC) - timedelta(hours=1)).int + 1)
        new = store.NewJob(id, 1, "m", "1", Priority.NORMAL, 60.0, "application/json", 1, b"1")
        with engine.begin() as connection:
            store.submit(connection, [new])

    tools = Tools(Settings(), engine, None, None)  # type: ignore[arg-type]  # it needs no Redis for what is fresh
    submit()
    chore = survey.Survey()
    chore.run(tools)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET status = 2"))
    chore.run(tools)
    submit()
    with engine.begin() as connection:
        assert [*store.survey(connection, UUID(int=0))] == [QUEUE]


def test_what_the_marks_may_have_passed_is_not_stored(engine: store.Engine) -> None:
    id = UUID(int=floor_uuid(datetime.now(UTC) - timedelta(seconds=100)).int + 1)
    late = store.NewJob(id, 1, "m", "1", Priority.NORMAL, 60.0, "application/json", 1, b"1")
    with pytest.raises(store.TooOld, match="90 s"), engine.begin() as connection:
        store.submit(connection, [late, late._replace(id=new_uuid())])
    with engine.begin() as connection:
        assert store.backlog(connection) == []


def test_an_id_ages_while_its_transaction_waits(engine: store.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tundish.store.jobs.ID_AGE", 0.05)
    with engine.begin() as connection:
        begun = store.clock(connection)
        job = store.NewJob(new_uuid(), 1, "m", "1", Priority.NORMAL, 60.0, "application/json", 1, b"1")
        wait_until(lambda: datetime.now(UTC) > begun + timedelta(seconds=0.2), "it has aged")
        with pytest.raises(store.TooOld):
            store.submit(connection, [job])


def test_retention_takes_ended_jobs_alone(engine: store.Engine) -> None:
    ids = submit(engine, 2)
    claimed, jobs = claim(engine, ids[:1])
    with engine.begin() as connection:
        store.record(connection, [end(jobs[0])], [store.Ran(claimed, 1.5)])
        assert store.past_retention(connection, floor_uuid(datetime(2020, 1, 1, tzinfo=UTC))) == []
        assert store.past_retention(connection, new_uuid()) == [(ids[0], 1)]
        store.delete_ended(connection, ids)
    assert read(engine, ids[0]) is None
    assert read(engine, ids[1])


def test_one_process_a_chore(engine: store.Engine) -> None:
    with engine.begin() as one, engine.begin() as other:
        assert store.lock(one, "reap")
        assert not store.lock(other, "reap")
        assert store.lock(other, "expire")


def test_days_are_made_by_the_databases_clock(database_ahead: Callable[[str], None], engine: store.Engine) -> None:
    database_ahead("20 days")
    with engine.begin() as connection:
        today = store.clock(connection)
        store.make_partitions(connection, 1)
        days = store.past_days(connection, today + timedelta(days=30))
        assert days[-3:] == [f"{today + timedelta(days=offset):%Y%m%d}" for offset in (-1, 0, 1)]


@pytest.mark.parametrize(("clock", "made"), [("00:01", True), ("00:03", False), ("12:00", False)])
def test_the_chore_makes_no_day_that_retention_may_have_dropped(
    database_ahead: Callable[[str], None], engine: store.Engine, clock: str, made: bool
) -> None:
    """But that of jobs which an API still stores whose clock lags over midnight."""
    with engine.begin() as connection:
        now = store.clock(connection)
    then = (now + timedelta(days=20)).replace(hour=int(clock[:2]), minute=int(clock[3:]), second=0, microsecond=0)
    database_ahead(f"{(then - now).total_seconds()} seconds")
    engine.dispose()
    partitions.run(Tools(Settings(), engine, None, None))  # type: ignore[arg-type]  # it needs no more
    with engine.begin() as connection:
        days = store.past_days(connection, then + timedelta(days=2))
    assert (f"{then - timedelta(days=1):%Y%m%d}" in days) == made
    assert f"{then:%Y%m%d}" in days


def test_a_day_is_made_beside_a_long_transaction_that_reads_and_nobody_waits(engine: store.Engine) -> None:
    """A dump, say: what waited for it to end would keep all others waiting."""
    with engine.begin() as reader:
        for table in ("jobs", "requests", "results", "deliveries"):
            reader.execute(text(f"SELECT FROM {table}"))
        with engine.begin() as connection:
            store.make_partitions(connection, 9)
            [id] = submit(engine)
    assert read(engine, id)
