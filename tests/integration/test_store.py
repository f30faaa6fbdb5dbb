"""The verbs of the store against a real Postgres: the fence, the lease, and what a death costs."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.integration.stored import (
    HUNG,
    LOST,
    WORKER,
    begin,
    beside,
    claim,
    end,
    let_expire,
    read,
    reap,
    run_out,
    start,
    status,
    submit,
)
from tests.local import wait_until
from tundish import store
from tundish.ids import new_uuid
from tundish.job import Priority, Status


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


def test_a_claim_whose_predict_follows_at_once_has_started(engine: store.Engine) -> None:
    [id] = submit(engine)
    claimed, begun = begin(engine, id)
    assert begun
    assert status(engine, id) is Status.RUNNING
    run_out(engine, claimed)
    assert [(job.id, job.deaths) for job in reap(engine).unsent] == [(id, 1)]


def test_it_has_not_where_an_input_must_be_brought_first(engine: store.Engine) -> None:
    far = store.NewJob(new_uuid(), 1, "m", "1", Priority.NORMAL, 60.0, "text/plain", 0, None)
    ids = []
    for each in (far._replace(input_url="https://example.com/"), far._replace(id=new_uuid(), blob="b", size=1)):
        with engine.begin() as connection:
            store.submit(connection, [each])
        ids.append(each.id)
    assert [begin(engine, id)[1] for id in ids] == [False, False]
    assert {status(engine, id) for id in ids} == {Status.QUEUED}


def test_it_has_not_where_an_endpoint_is_to_hear_of_the_start(engine: store.Engine) -> None:
    first, second = submit(engine, 2)
    hears = store.Endpoint(new_uuid(), 1, "https://example.com/hook", ["job.started"])
    with engine.begin() as connection:
        assert store.add_endpoint(connection, hears, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", most=100)
    assert not begin(engine, first)[1]
    with engine.begin() as connection:
        store.change_endpoint(connection, 1, hears.id, enabled=False)
    assert begin(engine, second)[1]


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


def test_what_was_given_back_was_not_claimed_in_vain(engine: store.Engine) -> None:
    [id] = submit(engine)
    for _ in range(5):
        claimed, _ = claim(engine, [id])
        with engine.begin() as connection:
            assert [job.id for job in store.release(connection, [claimed]).unsent] == [id]
    assert [lose(engine, id).unsent[0].deaths for _ in range(4)] == [0, 0, 0, 1]


def test_a_job_on_its_last_attempt_has_not_begun_when_it_is_claimed(engine: store.Engine) -> None:
    [id] = submit(engine)
    for _ in range(2):
        claimed, begun = begin(engine, id)
        assert begun
        run_out(engine, claimed)
        reap(engine)
    assert not begin(engine, id)[1]


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
        assert store.start(connection, new, lease=30.0)() == store.Started({ids[0]}, False)  # a cancel is not forgotten
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


def test_a_claim_that_is_given_back_at_that_moment_is_not_parted(engine: store.Engine) -> None:
    ids = submit(engine, 2)
    claimed, _ = claim(engine, ids)
    new = new_uuid()

    def part() -> None:
        with engine.begin() as connection:
            store.part(connection, claimed, new, ids[:1])

    beside(engine, lambda connection: store.release(connection, [claimed]), part)
    assert not start(engine, new)
    assert [status(engine, id) for id in ids] == [Status.QUEUED] * 2


def test_a_job_goes_with_the_output_that_its_shadow_gives_at_that_moment(engine: store.Engine) -> None:
    job = store.NewJob(new_uuid(), 1, "m", "1", Priority.NORMAL, 60.0, "application/json", 1, b"1").shadowed("2")
    assert job.shadow
    with engine.begin() as connection:
        store.submit(connection, [job])
        assert store.cancel(connection, 1, job.id)
    claimed, [shadow] = claim(engine, [job.shadow.id])

    def delete() -> None:
        with engine.begin() as connection:
            assert store.delete(connection, 1, job.id)

    ran = [store.Ran(claimed, 1.0)]
    beside(engine, lambda connection: store.record(connection, [end(shadow)], ran), delete)
    with engine.begin() as connection:
        for table in ("jobs", "requests", "results"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


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
        store.renew(connection, [claimed], lease=30.0)
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
        store.renew(connection, [held, new_uuid()], lease=30.0)
    assert reap(engine) == store.Requeued([], [])


def test_a_cancel_that_waits_for_a_claim_drops_its_job_from_it(engine: store.Engine) -> None:
    [id] = submit(engine)
    claimed = new_uuid()

    def cancel() -> bool:
        with engine.begin() as connection:
            return store.cancel(connection, 1, id)

    with ThreadPoolExecutor(1) as thread:
        with engine.begin() as connection:
            assert store.claim(connection, {claimed: [id]}, WORKER, lease=30.0, max_attempts=3)
            canceled = thread.submit(cancel)
            with engine.begin() as look:
                wait_until(lambda: look.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")), "it waits")
        assert canceled.result(10)
    with engine.begin() as connection:
        assert store.start(connection, claimed, lease=30.0)() == store.Started({id}, False)


def test_a_start_that_is_not_known_was_when_its_predict_began(engine: store.Engine) -> None:
    """As after a crash of Postgres, or where its answer was lost."""
    [id] = submit(engine)
    claimed, [job] = claim(engine, [id])
    with engine.begin() as connection:
        assert store.record(connection, [end(job)], [store.Ran(claimed, 60_000.0)]) == [id]
    ended = read(engine, id)
    assert ended
    assert ended.started_at
    assert ended.finished_at
    assert ended.finished_at - ended.started_at == timedelta(minutes=1)


def test_what_ended_while_it_was_claimed_ahead_is_dropped_from_the_claim(engine: store.Engine) -> None:
    canceled, other = submit(engine, 2)
    [late] = submit(engine)
    claimed, _ = claim(engine, [canceled, other, late])
    let_expire(engine, late)
    with engine.begin() as connection:
        assert store.expire(connection, b"{}") == [(late, 1)]
        assert store.cancel(connection, 1, canceled)
    with engine.begin() as connection:
        started = store.start(connection, claimed, lease=30.0)()
    assert started
    assert started.dropped == {late, canceled}


def test_what_waited_too_long_expires_and_is_not_claimed(engine: store.Engine) -> None:
    [late] = submit(engine, expires_in=-1.0)
    [fine] = submit(engine)
    assert [job.id for job in claim(engine, [late, fine])[1]] == [fine]
    with engine.begin() as connection:
        assert store.expire(connection, b"{}") == []
        store.survey(connection, new_uuid())
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


def test_a_list_reads_the_outputs_of_its_page_alone(engine: store.Engine) -> None:
    ids = submit(engine, 3)
    claimed, jobs = claim(engine, ids)
    assert start(engine, claimed)
    with engine.begin() as connection:
        store.record(connection, [end(job) for job in jobs], [store.Ran(claimed, 1.5)])
    looked: list[bytes | None] = []

    def keep(job: store.JobRow) -> bool:
        looked.append(job.output)
        return True

    search = store.Search(before=UUID(int=2**128 - 1), since=UUID(int=0), limit=2, keep=keep)
    with engine.begin() as connection:
        listing = store.list_jobs(connection, 1, search)
    assert [(job.id, job.output) for job in listing.jobs] == [(ids[2], b"2"), (ids[1], b"2")]
    assert looked == [None] * 3


def test_a_list_looks_at_a_bounded_number_of_rows(engine: store.Engine) -> None:
    ids = submit(engine, 5)
    search = store.Search(before=UUID(int=2**128 - 1), since=UUID(int=0), limit=1, status=Status.SUCCEEDED)
    with engine.begin() as connection:
        assert store.list_jobs(connection, 1, search, budget=2) == store.Listing([], ids[3])


@pytest.mark.parametrize("limit", [1, 20])
def test_a_page_ends_where_its_look_ended_whatever_comes_or_goes_meanwhile(engine: store.Engine, limit: int) -> None:
    """Jobs come and go while a page is read: none of those that stay is on two pages, or on none."""
    ids = submit(engine, 6)
    wanted = {ids[0], ids[2], ids[3]}

    def keep(job: store.JobRow) -> bool:
        if job.id == ids[5]:  # the look at the first page has begun
            submit(engine, 2)
            with engine.begin() as other:
                assert store.cancel(other, 1, ids[4])
                assert store.delete(other, 1, ids[4], "")
        return job.id in wanted

    found: list[UUID] = []
    before: UUID | None = UUID(int=2**128 - 1)
    while before:
        search = store.Search(before=before, since=UUID(int=0), limit=limit, keep=keep)
        with engine.begin() as connection:
            listing = store.list_jobs(connection, 1, search, budget=3)
        found += [job.id for job in listing.jobs]
        before = listing.next_before
    assert found == sorted(wanted, reverse=True)
