"""The claims in a worker's hands, against a real Postgres and Redis."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.integration.stored import WORKER, read, status, submit
from tests.local import Local
from tundish import store
from tundish.ids import new_uuid
from tundish.job import Status
from tundish.settings import Settings
from workers.batch import Draft, Target
from workers.claim import Custody


@pytest.fixture
def custody(system: Local, engine: store.Engine, kept: store.Kept) -> Custody:
    client = redis.Redis.from_url(system.ps()["valkey"]["url"])
    return Custody(WORKER, Settings(), engine, kept, client)


def lose_an_answer(monkeypatch: pytest.MonkeyPatch, verb: str = "claim") -> None:
    """What the next one writes is written, and its worker hears nothing of it."""

    def lost(*given: Any, **options: Any) -> Any:
        monkeypatch.undo()
        getattr(store, verb)(*given, **options)
        given[0].commit()
        raise OperationalError(verb, None, Exception("the connection is cut"))

    monkeypatch.setattr(store, verb, lost)


def claims(engine: store.Engine) -> int:
    with engine.begin() as connection:
        return int(connection.execute(text("SELECT count(*) FROM claims")).scalar_one())


def test_a_claim_whose_answer_is_lost_is_given_back_before_the_next(
    custody: Custody, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    [id] = submit(engine)
    draft = Draft(Target("m", "1"), (id.hex,))
    lose_an_answer(monkeypatch)
    with pytest.raises(store.StoreError):
        custody.take([draft], begin=True)
    assert (claims(engine), custody.held) == (1, set())
    [taken] = custody.take([draft], begin=True)
    assert (claims(engine), custody.held) == (1, {taken.id})
    [job] = taken.jobs
    assert (job.id, job.attempt, job.deaths) == (id, 2, 0)


def test_a_claim_that_is_made_after_its_answer_was_given_up_is_given_back(
    custody: Custody, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    [id] = submit(engine)
    draft = Draft(Target("m", "1"), (id.hex,))
    claim, late = store.claim, []

    def given_up(*given: Any, **options: Any) -> Any:
        late.append(partial(claim, *given, **options))
        raise OperationalError("claim", None, Exception("the disk stalls"))

    def made_meanwhile(*given: Any, **options: Any) -> Any:
        late.pop()()
        monkeypatch.undo()
        return claim(*given, **options)

    monkeypatch.setattr(store, "claim", given_up)
    with pytest.raises(store.StoreError):
        custody.take([draft], begin=True)
    monkeypatch.setattr(store, "claim", made_meanwhile)
    assert custody.take([draft], begin=True) == []
    assert (claims(engine), status(engine, id)) == (0, Status.QUEUED)
    [taken] = custody.take([draft], begin=True)
    assert [(job.attempt, job.deaths) for job in taken.jobs] == [(2, 0)]


def test_what_was_taken_is_had_although_what_may_be_held_cannot_be_given_back(
    custody: Custody, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [Draft(Target("m", "1"), (id.hex,)) for id in submit(engine, 2)]
    lose_an_answer(monkeypatch)
    with pytest.raises(store.StoreError):
        custody.take([first], begin=True)

    def away(*given: Any, **options: Any) -> Any:
        raise OperationalError("release", None, Exception("away"))

    monkeypatch.setattr("workers.claim.LOOK", 3600.0)
    custody._looked = time.monotonic()  # the first look was just now
    monkeypatch.setattr(store, "release", away)
    [taken] = custody.take([first, second], begin=True)
    assert custody.held == {taken.id}
    assert claims(engine) == 2
    custody.let_go([taken.id])
    monkeypatch.undo()
    custody.end()
    assert claims(engine) == 1


def test_at_the_end_all_is_given_back_that_may_be_held(
    custody: Custody, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = submit(engine, 2)
    assert custody.take([Draft(Target("m", "1"), (first.hex,))], begin=True)
    lose_an_answer(monkeypatch)
    with pytest.raises(store.StoreError):
        custody.take([Draft(Target("m", "1"), (second.hex,))], begin=True)
    custody.end()
    assert (claims(engine), custody.held) == (0, set())
    assert [job and job.started_at for job in (read(engine, first), read(engine, second))] == [None, None]


def test_a_part_whose_answer_is_lost_is_given_back_at_the_end(
    custody: Custody, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submit(engine, 2)
    [taken] = custody.take([Draft(Target("m", "1"), tuple(id.hex for id in ids))], begin=False)
    lose_an_answer(monkeypatch, "part")
    with pytest.raises(store.StoreError):
        custody.part(taken, replace(taken, id=new_uuid(), jobs=taken.jobs[:1]))
    assert claims(engine) == 2
    custody.end()
    assert (claims(engine), custody.held) == (0, set())
    assert [status(engine, id) for id in ids] == [Status.QUEUED] * 2


def test_batches_that_are_claimed_together_start_one_by_one(custody: Custody, engine: store.Engine) -> None:
    ids = submit(engine, 5)
    gone, *drafts = [Draft(Target("m", "1"), tuple(id.hex for id in some)) for some in (ids[:1], ids[1:3], ids[3:])]
    custody.take([gone], begin=False)
    first, second = custody.take([gone, *drafts], begin=False)
    assert [[job.id for job in each.jobs] for each in (first, second)] == [ids[1:3], ids[3:]]
    assert [(each.begun, each.more) for each in (first, second)] == [(False, True), (False, False)]
    assert custody.held > {first.id, second.id}
    assert claims(engine) == 3
    custody.end()
    first, second = custody.take(drafts, begin=True)
    assert [(each.begun, each.more) for each in (first, second)] == [(True, True), (False, False)]
    assert [status(engine, id) for id in ids] == [Status.QUEUED] + [Status.RUNNING] * 2 + [Status.QUEUED] * 2


def test_nothing_is_recorded_together_with_a_job_on_its_last_attempt(custody: Custody, engine: store.Engine) -> None:
    ids = submit(engine, 3)
    with engine.begin() as connection:
        last = Settings().max_attempts - 1
        connection.execute(text("UPDATE jobs SET deaths = :last WHERE id = :id"), {"last": last, "id": ids[1]})
    taken = custody.take([Draft(Target("m", "1"), (id.hex,)) for id in ids], begin=False)
    assert [(each.jobs[0].id, each.more) for each in taken] == [(ids[0], True), (ids[1], False), (ids[2], False)]
    assert custody.lone
    custody.let_go([taken[1].id])
    assert not custody.lone


def test_claims_whose_answer_is_lost_are_all_given_back(
    custody: Custody, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = [Draft(Target("m", "1"), (id.hex,)) for id in submit(engine, 2)]
    lose_an_answer(monkeypatch)
    with pytest.raises(store.StoreError):
        custody.take(drafts, begin=True)
    assert claims(engine) == 2
    custody.end()
    assert claims(engine) == 0
