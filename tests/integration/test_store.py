"""The verbs of the store against a real Postgres: the fence, the lease, what a death costs, and the sweeps."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from tests.local import wait_until
from tundish import store
from tundish.ids import floor_uuid, new_uuid
from tundish.job import Code, Priority, Status, error_json
from tundish.queue import Queue
from tundish.store.stall import guard

WORKER = new_uuid()
LOST = error_json(Code.WORKER_LOST, "lost")
HUNG = error_json(Code.TIMEOUT, "hung")
QUEUE = Queue("m", "1", Priority.NORMAL)


def submit(engine: store.Engine, count: int = 1, tenant: int = 1, expires_in: float = 60.0) -> list[UUID]:
    jobs = [
        store.NewJob(new_uuid(), tenant, "m", "1", Priority.NORMAL, expires_in, "application/json", 1, b"1")
        for _ in range(count)
    ]
    with engine.begin() as connection:
        store.submit(connection, jobs)
    return [job.id for job in jobs]


def claim(engine: store.Engine, ids: Sequence[UUID], lease: float = 30.0) -> tuple[UUID, list[store.ClaimedJob]]:
    id = new_uuid()
    with engine.begin() as connection:
        return id, store.claim(connection, id, WORKER, ids, lease=lease, max_attempts=3)


def end(job: store.ClaimedJob, status: Status = Status.SUCCEEDED) -> store.Finished:
    return store.Finished(job.id, job.attempt, status, "application/json", b"2")


def read(engine: store.Engine, id: UUID, tenant: int = 1) -> store.JobRow | None:
    with engine.begin() as connection:
        return store.read(connection, [(id, tenant)]).get((id, tenant))


def run_out(engine: store.Engine, *claims: UUID) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE claims SET lease_until = now() - interval '1 s' WHERE id = ANY(:ids)"),
                           {"ids": list(claims)})  # fmt: skip


def reap(engine: store.Engine) -> store.Requeued:
    with engine.begin() as connection:
        return store.reap(connection, store.Judgement(3, LOST, HUNG))


def start(engine: store.Engine, id: UUID) -> bool:
    with engine.begin() as connection:
        return store.start(connection, id, lease=30.0) is not None


def status(engine: store.Engine, id: UUID) -> Status:
    job = read(engine, id)
    assert job
    return job.status


def test_a_job_is_claimed_once_and_recorded_once(engine: store.Engine) -> None:
    ids = submit(engine, 3)
    first, jobs = claim(engine, ids)
    assert [(job.id, job.attempt, job.body) for job in jobs] == [(id, 1, b"1") for id in ids]
    assert claim(engine, ids)[1] == []
    assert status(engine, ids[0]) is Status.QUEUED  # claimed ahead is not running
    assert start(engine, first)
    assert status(engine, ids[0]) is Status.RUNNING
    with engine.begin() as connection:
        assert store.record(connection, [end(job) for job in jobs], [store.Ran(first, 1.5)]) == [job.id for job in jobs]
    with engine.begin() as connection:
        again = [end(job)._replace(status=Status.FAILED, body=b"3") for job in jobs]
        assert store.record(connection, again, [store.Ran(first, 1.5)]) == []
    job = read(engine, ids[0])
    assert job
    assert (job.status, job.output) == (Status.SUCCEEDED, b"2")


def test_a_stale_worker_is_fenced_by_the_attempt(engine: store.Engine) -> None:
    [id] = submit(engine)
    slow, [late] = claim(engine, [id])
    assert start(engine, slow)
    run_out(engine, slow)
    assert [job.id for job in reap(engine).unsent] == [id]
    _, [now] = claim(engine, [id])
    assert (late.attempt, now.attempt, now.deaths) == (1, 2, 1)
    with engine.begin() as connection:
        assert store.record(connection, [end(late)], [store.Ran(slow, 1.5)]) == []
    with engine.begin() as connection:
        assert store.record(connection, [end(now)], []) == [id]


def test_a_late_result_counts_where_nobody_else_has_claimed_the_job(engine: store.Engine) -> None:
    [id] = submit(engine)
    slow, [late] = claim(engine, [id])
    assert start(engine, slow)
    run_out(engine, slow)
    with engine.begin() as connection:
        assert store.record(connection, [end(late)], [store.Ran(slow, 1.5)]) == [id]
    assert reap(engine) == store.Requeued([], [])


def test_a_claim_that_ran_out_may_not_start(engine: store.Engine) -> None:
    claimed, _ = claim(engine, submit(engine))
    run_out(engine, claimed)
    assert not start(engine, claimed)


def test_only_a_started_claim_charges_a_death(engine: store.Engine) -> None:
    waiting, started = submit(engine, 2)
    claims = [claim(engine, [waiting])[0], claim(engine, [started])[0]]
    assert start(engine, claims[1])
    run_out(engine, *claims)
    assert {job.id: job.deaths for job in reap(engine).unsent} == {waiting: 0, started: 1}


def test_a_job_that_is_claimed_in_vain_again_and_again_is_charged_ends_alone_and_at_last(engine: store.Engine) -> None:
    """What reading its input does to a worker looks like this."""
    [id] = submit(engine)
    deaths: list[int] = []
    while not (requeued := lose(engine, id)).ended:
        deaths.append(requeued.unsent[0].deaths)
    assert deaths[:5] == [0, 0, 0, 1, 2]
    assert deaths[5:] == [2] * (len(deaths) - 5)
    assert len(deaths) == 22
    job = read(engine, id)
    assert job
    assert job.status is Status.FAILED


def lose(engine: store.Engine, id: UUID) -> store.Requeued:
    """Claim a job, and die before its batch starts."""
    claimed, [_] = claim(engine, [id])
    run_out(engine, claimed)
    return reap(engine)


def test_a_claim_is_parted_and_each_part_goes_its_own_way(engine: store.Engine) -> None:
    ids = submit(engine, 4)
    first, jobs = claim(engine, ids)
    new = new_uuid()
    with engine.begin() as connection:
        store.cancel(connection, 1, ids[0])
        store.part(connection, first, new, [ids[2], ids[0]])
        assert store.start(connection, new, lease=30.0) == store.Started({ids[0]}, False)  # a cancel is not forgotten
    assert [status(engine, id) for id in ids[1:]] == [Status.QUEUED, Status.RUNNING, Status.QUEUED]
    with engine.begin() as connection:
        assert store.record(connection, [end(jobs[2])], [store.Ran(new, 1.5)]) == [ids[2]]
    done = read(engine, ids[2])
    assert done
    assert (done.batch_size, done.worker, done.predict_ms) == (2, WORKER, 1.5)
    assert start(engine, first)
    run_out(engine, first)
    assert {(job.id, job.deaths) for job in reap(engine).unsent} == {(ids[1], 1), (ids[3], 1)}


def test_a_claim_that_is_lost_is_not_parted(engine: store.Engine) -> None:
    ids = submit(engine, 2)
    first, _ = claim(engine, ids)
    run_out(engine, first)
    reap(engine)
    second, _ = claim(engine, ids)
    new = new_uuid()
    with engine.begin() as connection:
        store.part(connection, first, new, ids[:1])
    assert not start(engine, new)
    assert start(engine, second)
    assert [status(engine, id) for id in ids] == [Status.RUNNING] * 2


def test_the_last_attempt_is_alone_and_then_it_is_lost(engine: store.Engine) -> None:
    killer, neighbour = submit(engine, 2)
    for _ in range(2):
        claimed, _ = claim(engine, [killer])
        assert start(engine, claimed)
        run_out(engine, claimed)
        reap(engine)
    assert [job.id for job in claim(engine, [killer, neighbour])[1]] == [neighbour]
    claimed, [job] = claim(engine, [killer])
    assert (job.attempt, job.deaths) == (3, 2)
    assert start(engine, claimed)
    run_out(engine, claimed)
    assert reap(engine) == store.Requeued([], [(killer, 1)])
    found = read(engine, killer)
    assert found
    assert (found.status, found.error) == (Status.FAILED, LOST)


def overdue(engine: store.Engine, id: UUID) -> None:
    with engine.begin() as connection:
        store.overdue(connection, id)


def test_a_batch_that_hung_is_charged_nothing_and_each_of_it_runs_alone(engine: store.Engine) -> None:
    one, other, third = submit(engine, 3)
    claimed, _ = claim(engine, [one, other])
    assert start(engine, claimed)
    overdue(engine, claimed)
    run_out(engine, claimed)
    assert sorted((job.id, job.deaths, job.alone) for job in reap(engine).unsent) == [(one, 0, True), (other, 0, True)]
    assert [job.id for job in claim(engine, [one, other, third])[1]] == [third]
    claimed, [job] = claim(engine, [one])
    assert job.attempt == 2
    assert start(engine, claimed)
    overdue(engine, claimed)
    run_out(engine, claimed)
    assert reap(engine) == store.Requeued([], [(one, 1)])
    found = read(engine, one)
    assert found
    assert (found.status, found.error) == (Status.FAILED, HUNG)
    assert status(engine, other) is Status.QUEUED


def test_a_claim_that_came_back_from_its_time_out_is_held_again(engine: store.Engine) -> None:
    [id] = submit(engine)
    claimed, _ = claim(engine, [id])
    assert start(engine, claimed)
    overdue(engine, claimed)
    with engine.begin() as connection:
        assert store.renew(connection, [claimed], lease=30.0) == {claimed}
    run_out(engine, claimed)
    assert [(job.id, job.deaths, job.alone) for job in reap(engine).unsent] == [(id, 1, False)]


def test_released_jobs_are_queued_again_and_charged_nothing(engine: store.Engine) -> None:
    ids = submit(engine, 2)
    claimed, _ = claim(engine, ids)
    assert start(engine, claimed)
    with engine.begin() as connection:
        released = store.release(connection, [claimed])
    assert sorted(job.id for job in released.unsent) == sorted(ids)
    assert {job.deaths for job in claim(engine, ids)[1]} == {0}


def test_a_canceled_job_is_not_run_and_its_result_is_refused(engine: store.Engine) -> None:
    ahead, running = submit(engine, 2)
    claims = [claim(engine, [ahead]), claim(engine, [running])]
    assert start(engine, claims[1][0])
    with engine.begin() as connection:
        assert store.cancel(connection, 1, ahead)
        assert not store.cancel(connection, 1, running)
        assert not store.cancel(connection, 2, running)
        assert store.to_cancel(connection, [ahead, running]) == {ahead, running}
        assert store.record(connection, [end(job) for _, [job] in claims], []) == [running]
    assert status(engine, ahead) is Status.CANCELED


def test_a_renewed_claim_is_held(engine: store.Engine) -> None:
    held, _ = claim(engine, submit(engine), lease=0.001)
    with engine.begin() as connection:
        assert store.renew(connection, [held, new_uuid()], lease=30.0) == {held}
    assert reap(engine) == store.Requeued([], [])


def test_a_cancel_that_waits_for_a_claim_drops_its_job_from_it(engine: store.Engine) -> None:
    [id] = submit(engine)
    claimed = new_uuid()

    def cancel() -> bool:
        with engine.begin() as connection:
            return store.cancel(connection, 1, id)

    with ThreadPoolExecutor(1) as thread:
        with engine.begin() as connection:
            assert store.claim(connection, claimed, WORKER, [id], lease=30.0, max_attempts=3)
            canceled = thread.submit(cancel)
            with engine.begin() as look:
                wait_until(lambda: look.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")), "it waits")
        assert canceled.result(10)
    with engine.begin() as connection:
        assert store.start(connection, claimed, lease=30.0) == store.Started({id}, False)


def test_what_ended_while_it_was_claimed_ahead_is_dropped_from_the_claim(engine: store.Engine) -> None:
    canceled, other = submit(engine, 2)
    [late] = submit(engine)
    claimed, _ = claim(engine, [canceled, other, late])
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET expires_at = now() WHERE id = :id"), {"id": late})
    with engine.begin() as connection:
        assert store.expire(connection, b"{}") == [(late, 1)]
        assert store.cancel(connection, 1, canceled)
    with engine.begin() as connection:
        started = store.start(connection, claimed, lease=30.0)
    assert started
    assert started.dropped == {late, canceled}


def test_what_waited_too_long_expires_and_is_not_claimed(engine: store.Engine) -> None:
    [late] = submit(engine, expires_in=-1.0)
    [fine] = submit(engine)
    assert [job.id for job in claim(engine, [late, fine])[1]] == [fine]
    with engine.begin() as connection:
        assert store.expire(connection, b"{}") == [(late, 1)]
    assert status(engine, late) is Status.FAILED


def test_another_tenants_job_is_not_there(engine: store.Engine) -> None:
    [mine] = submit(engine, tenant=1)
    assert read(engine, mine, tenant=2) is None
    search = store.Search(before=UUID(int=2**128 - 1), since=UUID(int=0))
    with engine.begin() as connection:
        assert store.read_input(connection, 2, mine) is None
        assert store.read_output(connection, 2, mine) is None
        assert store.list_jobs(connection, 2, search).jobs == []
        assert len(store.list_jobs(connection, 1, search).jobs) == 1


def test_a_list_looks_at_a_bounded_number_of_rows(engine: store.Engine) -> None:
    ids = submit(engine, 5)
    search = store.Search(before=UUID(int=2**128 - 1), since=UUID(int=0), limit=1, status=Status.SUCCEEDED)
    with engine.begin() as connection:
        assert store.list_jobs(connection, 1, search, budget=2) == store.Listing([], ids[3])


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
        assert 0 <= (waiting.oldest_s or -1) < 60


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
    assert read(engine, ids[0]) is None
    assert read(engine, ids[1])


def test_one_process_a_chore(engine: store.Engine) -> None:
    with engine.begin() as one, engine.begin() as other:
        assert store.lock(one, "reap")
        assert not store.lock(other, "reap")
        assert store.lock(other, "expire")


def test_claims_prune_to_their_partition(engine: store.Engine) -> None:
    [id] = submit(engine)
    with engine.begin() as connection:
        plan = connection.execute(
            text("EXPLAIN UPDATE jobs SET status = 1 WHERE id = ANY(:ids) AND id BETWEEN :id AND :id AND status = 0"),
            {"ids": [id], "id": id},
        ).scalars()
        assert sum("jobs_2" in line and "Scan" in line for line in plan) == 1


def test_what_every_batch_takes_reads_each_job_once(database_url: str) -> None:
    """A table that was analysed while all its jobs waited makes the planner believe that none runs."""
    engine = store.engine(database_url, by_ids=True)
    ids = submit(engine, 9000)[:600]
    with engine.begin() as connection:
        connection.execute(text("ANALYZE jobs, requests, results"))
    plans: list[str] = []

    def explain(connection: store.Connection, cursor: Any, statement: str, given: Any, *_: object) -> None:
        if not statement.startswith("EXPLAIN"):
            plans.extend(line for (line,) in connection.exec_driver_sql("EXPLAIN " + statement, given))

    event.listen(engine, "before_cursor_execute", explain)
    claimed, jobs = claim(engine, ids)
    with engine.begin() as connection:
        store.record(connection, [end(job) for job in jobs], [store.Ran(claimed, 1.5)])
        store.read(connection, [(id, 1) for id in ids])
    engine.dispose()
    assert sum("Hash" in line for line in plans) >= 3
    assert not [line for line in plans if "Nested Loop" in line]
    assert not [line for line in plans if "Seq Scan on jobs" in line]


@pytest.mark.parametrize("count", [1, 600])
def test_updates_on_the_hot_path_stay_hot(engine: store.Engine, count: int) -> None:
    ids = submit(engine, count)
    claimed, jobs = claim(engine, ids)
    with engine.begin() as connection:
        store.record(connection, [end(job) for job in jobs], [store.Ran(claimed, 1.5)])
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    with engine.begin() as connection:
        updated, hot = connection.execute(
            text("SELECT sum(n_tup_upd), sum(n_tup_hot_upd) FROM pg_stat_user_tables WHERE relname LIKE 'jobs_2%'")
        ).one()
    assert updated == 2 * count
    assert float(hot) >= 0.95 * float(updated)


def test_a_server_that_stalls_is_given_up(database_url: str) -> None:
    engine = store.engine(database_url)
    guard(engine, limit=0.3)
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        began = time.monotonic()
        with pytest.raises(store.StoreError):
            connection.execute(text("SELECT pg_sleep(60)"))
        assert time.monotonic() - began < 5
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()


async def given_up(database_url: str) -> float:
    engine = store.async_engine(database_url)
    guard(engine.sync_engine, limit=0.3)
    began = time.monotonic()
    with pytest.raises(store.StoreError):
        await store.run(engine, lambda connection: connection.execute(text("SELECT pg_sleep(7)")))
    await engine.dispose()
    return time.monotonic() - began


def test_an_event_loop_does_not_wait_for_it_either(database_url: str) -> None:
    assert asyncio.run(given_up(database_url)) < 5
