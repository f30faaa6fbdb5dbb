"""Rows of two days in one statement, which waits for another's change of one of them and then looks at it again: all
are changed, whatever plan Postgres takes. With a lock in the same statement it is not so: docs/decisions/0016."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import event, text

from tests.integration.stored import beside, claim, end, reap, run_out
from tundish import store
from tundish.ids import new_uuid
from tundish.job import Priority

#: What else Postgres could do than nest loops.
OTHERS = ("hashjoin", "mergejoin", "seqscan", "bitmapscan")


@pytest.fixture(params=["any plan", "nested loops", "as workers plan"])
def engine(request: pytest.FixtureRequest, database_url: str) -> Iterator[store.Engine]:
    engine = store.engine(database_url, by_ids=request.param == "as workers plan")
    if request.param == "nested loops":
        without = "; ".join(f"SET enable_{each} = off" for each in OTHERS)
        event.listen(engine, "connect", lambda driver, _: (driver.execute(without), driver.commit()))
    yield engine
    engine.dispose()


@pytest.fixture
def ids() -> list[UUID]:
    """Two of today, two of tomorrow."""
    now = datetime.now(UTC)
    return [new_uuid(now + timedelta(days=day)) for day in (0, 0, 1, 1)]


@pytest.fixture
def jobs(engine: store.Engine, ids: list[UUID]) -> list[UUID]:
    with engine.begin() as connection:
        new = (store.NewJob(id, 1, "m", "1", Priority.NORMAL, 60.0, "application/json", 1, b"1") for id in ids)
        store.submit(connection, list(new))
    return ids


def changing(table: str, id: UUID) -> Callable[[store.Connection], object]:
    change = text(f"UPDATE {table} SET tenant = tenant WHERE id = :id")
    return lambda connection: connection.execute(change, {"id": id})


def count(engine: store.Engine, what: str) -> int:
    with engine.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {what}")).scalar_one())


@pytest.mark.parametrize("held", [0, 3])
def test_all_are_claimed(engine: store.Engine, jobs: list[UUID], held: int) -> None:
    beside(engine, changing("jobs", jobs[held]), lambda: claim(engine, jobs))
    assert count(engine, "jobs WHERE status = 1") == 4


@pytest.mark.parametrize("held", [0, 3])
def test_all_are_recorded(engine: store.Engine, kept: store.Kept, jobs: list[UUID], held: int) -> None:
    id, claimed = claim(engine, jobs)
    ran = [store.Ran(id, 1.0)]
    beside(engine, changing("jobs", jobs[held]), lambda: store.record(kept(), list(map(end, claimed)), ran))
    assert count(engine, "jobs WHERE status = 2") == count(engine, "results") == 4


@pytest.mark.parametrize("held", [0, 3])
def test_all_come_back(engine: store.Engine, jobs: list[UUID], held: int) -> None:
    run_out(engine, claim(engine, jobs)[0])
    beside(engine, changing("jobs", jobs[held]), lambda: reap(engine))
    assert count(engine, "jobs WHERE status = 0") == 4


@pytest.mark.parametrize("held", [0, 3])
def test_all_are_settled(engine: store.Engine, ids: list[UUID], held: int) -> None:
    with engine.begin() as connection:
        told = (store.Delivery(id, 1, ids[0], "job.succeeded", "http://a/", b"{}", None, None, None) for id in ids)
        store.deliver(connection, list(told))
        until = connection.execute(text("SELECT id, give_up_at::text FROM deliveries")).all()

    def settle() -> None:
        with engine.begin() as connection:
            store.settle(connection, [store.Settled(id, 0, at, "{}", "delivered") for id, at in until])

    beside(engine, changing("deliveries", ids[held]), settle)
    assert count(engine, "deliveries WHERE status = 'delivered'") == 4
