"""The claims in a worker's hands, against a real Postgres and Redis."""

from dataclasses import replace
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
        custody.take(draft, begin=True)
    assert (claims(engine), custody.held) == (1, set())
    taken = custody.take(draft, begin=True)
    assert taken
    assert (claims(engine), custody.held) == (1, {taken.id})
    [job] = taken.jobs
    assert (job.id, job.attempt, job.deaths) == (id, 2, 0)


def test_at_the_end_all_is_given_back_that_may_be_held(
    custody: Custody, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = submit(engine, 2)
    assert custody.take(Draft(Target("m", "1"), (first.hex,)), begin=True)
    lose_an_answer(monkeypatch)
    with pytest.raises(store.StoreError):
        custody.take(Draft(Target("m", "1"), (second.hex,)), begin=True)
    custody.end()
    assert (claims(engine), custody.held) == (0, set())
    assert [job and job.started_at for job in (read(engine, first), read(engine, second))] == [None, None]


def test_a_part_whose_answer_is_lost_is_given_back_at_the_end(
    custody: Custody, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submit(engine, 2)
    taken = custody.take(Draft(Target("m", "1"), tuple(id.hex for id in ids)), begin=False)
    assert taken
    lose_an_answer(monkeypatch, "part")
    with pytest.raises(store.StoreError):
        custody.part(taken, replace(taken, id=new_uuid(), jobs=taken.jobs[:1]))
    assert claims(engine) == 2
    custody.end()
    assert (claims(engine), custody.held) == (0, set())
    assert [status(engine, id) for id in ids] == [Status.QUEUED] * 2
