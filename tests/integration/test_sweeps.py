"""What the chores find in the store: lost messages, what is behind the marks, what is past its retention."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.integration.stored import QUEUE, claim, end, read, submit
from tundish import store
from tundish.ids import floor_uuid, new_uuid
from tundish.job import Priority
from tundish.settings import Settings
from workers.chores import Tools, marks


def test_lost_messages_are_found_and_a_long_backlog_is_not(engine: store.Engine) -> None:
    ids = submit(engine, 3)
    with engine.begin() as connection:
        sent_at = connection.execute(text("SELECT extract(epoch FROM sent_at) FROM jobs LIMIT 1")).scalar_one()
        assert store.queues(connection) == [QUEUE]
        backlog = store.unsent(connection, QUEUE, before=float(sent_at) - 1, older_than=0)
        assert backlog == []
        young = store.unsent(connection, QUEUE, before=float("inf"), older_than=60)
        assert young == []
    with engine.begin() as connection:
        lost = store.unsent(connection, QUEUE, before=float("inf"), older_than=0)
        assert sorted(job.id for job in lost) == ids


def test_marks_bound_the_sweeps_and_pass_no_open_job(engine: store.Engine) -> None:
    ids = submit(engine, 3)
    claimed, jobs = claim(engine, ids[:1])
    with engine.begin() as connection:
        store.record(connection, [end(jobs[0])], [store.Ran(claimed, 1.5)])
        store.advance_marks(connection, new_uuid())
        assert store.low_water(connection) == ids[1]
        [waiting] = store.backlog(connection)
        assert (waiting.queue, waiting.queued) == (QUEUE, 2)
        assert 0 <= waiting.oldest_s < 60


def test_the_marks_go_by_the_databases_clock(slow_clock: None, engine: store.Engine) -> None:
    def submit() -> None:
        id = UUID(int=floor_uuid(datetime.now(UTC) - timedelta(hours=1)).int + 1)
        new = store.NewJob(id, 1, "m", "1", Priority.NORMAL, 60.0, "application/json", 1, b"1")
        with engine.begin() as connection:
            store.submit(connection, [new])

    tools = Tools(Settings(), engine, None, None)  # type: ignore[arg-type]  # it needs neither Redis nor blobs
    submit()
    marks.run(tools)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET status = 2"))
    marks.run(tools)
    submit()
    with engine.begin() as connection:
        assert store.queues(connection) == [QUEUE]


def test_what_the_marks_may_have_passed_is_not_stored(engine: store.Engine) -> None:
    id = UUID(int=floor_uuid(datetime.now(UTC) - timedelta(seconds=100)).int + 1)
    late = store.NewJob(id, 1, "m", "1", Priority.NORMAL, 60.0, "application/json", 1, b"1")
    with pytest.raises(store.TooOld, match="90 s"), engine.begin() as connection:
        store.submit(connection, [late, late._replace(id=new_uuid())])
    with engine.begin() as connection:
        assert store.backlog(connection) == []


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


def test_a_day_is_made_beside_a_long_transaction_that_reads_and_nobody_waits(engine: store.Engine) -> None:
    """A dump, say: what waited for it to end would keep all others waiting."""
    with engine.begin() as reader:
        for table in ("jobs", "requests", "results", "deliveries"):
            reader.execute(text(f"SELECT FROM {table}"))
        with engine.begin() as connection:
            store.make_partitions(connection, 9)
            [id] = submit(engine)
    assert read(engine, id)
