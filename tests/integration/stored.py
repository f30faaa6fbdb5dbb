"""Jobs in a store: what tests of its verbs do with them again and again."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.local import wait_until
from tundish import store
from tundish.ids import new_uuid
from tundish.job import Code, Priority, Status, error_json
from tundish.queue import Queue

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


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """The clock that this host makes ids by is wrong."""
    wrong = SimpleNamespace(time_ns=lambda: time.time_ns() + int(ahead.total_seconds() * 1e9))
    monkeypatch.setattr("tundish.ids.time", wrong)
    monkeypatch.setattr("tundish.ids._last", (0, 0))


def begin(engine: store.Engine, id: UUID) -> tuple[UUID, bool]:
    """A claim whose predict follows at once, and whether it has begun."""
    claimed = new_uuid()
    with engine.begin() as connection:
        taken = store.claim(connection, {claimed: [id]}, WORKER, lease=30.0, max_attempts=3, begin=claimed)
    return claimed, taken[claimed].begun


def claim(engine: store.Engine, ids: Sequence[UUID], lease: float = 30.0) -> tuple[UUID, list[store.ClaimedJob]]:
    id = new_uuid()
    with engine.begin() as connection:
        taken = store.claim(connection, {id: ids}, WORKER, lease=lease, max_attempts=3)
    return id, taken[id].jobs if taken else []


def end(job: store.ClaimedJob, status: Status = Status.SUCCEEDED) -> store.Finished:
    return store.Finished(job.id, job.attempt, status, "application/json", b"2")


def read(engine: store.Engine, id: UUID, tenant: int = 1) -> store.JobRow | None:
    with engine.begin() as connection:
        return store.read(connection, [(id, tenant)]).get((id, tenant))


def run_out(engine: store.Engine, *claims: UUID) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE claims SET lease_until = now() - interval '1 s' WHERE id = ANY(:ids)"),
                           {"ids": list(claims)})  # fmt: skip


def let_expire(engine: store.Engine, *ids: UUID) -> None:
    """Now is the moment at which they expire, as the last survey has seen."""
    with engine.begin() as connection:
        store.survey(connection, new_uuid())
        for table in ("jobs", "marks"):
            which = "WHERE id = ANY(:ids)" if table == "jobs" else ""
            connection.execute(text(f"UPDATE {table} SET expires_at = now() {which}"), {"ids": list(ids)})


def reap(engine: store.Engine) -> store.Requeued:
    with engine.begin() as connection:
        return store.reap(connection, store.Judgement(3, LOST, HUNG))


def start(engine: store.Engine, id: UUID) -> bool:
    with engine.begin() as connection:
        return store.start(connection, id, lease=30.0)() is not None


def status(engine: store.Engine, id: UUID) -> Status:
    job = read(engine, id)
    assert job
    return job.status


def beside(engine: store.Engine, first: Callable[[store.Connection], object], then: Callable[[], object]) -> None:
    """`then`, which waits for what `first` has changed in a transaction that is not over yet."""

    def waits() -> bool:
        with engine.begin() as connection:
            found = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity"
            return bool(connection.execute(text(f"{found} WHERE datname = current_database()))")).scalar())

    with ThreadPoolExecutor(1) as thread:
        with engine.begin() as connection:
            first(connection)
            done = thread.submit(then)
            wait_until(waits, "it waits")
        done.result()
