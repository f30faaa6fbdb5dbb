"""Days past the retention, dropped against a real Postgres, with their blobs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import redis
from sqlalchemy import text
from starlette.testclient import TestClient

from tests.integration.delivered import finish
from tests.local import Local
from tundish import store
from tundish.blobs import BlobMissing, BlobUnavailable, Directory, day_prefix, job_prefix, key
from tundish.ids import floor_uuid, to_text
from tundish.job import Priority
from tundish.outcome import Done
from tundish.settings import Settings
from tundish.store.partitions import PARTITIONED
from workers.chores import Tools, retention

NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
OLD = NOW - timedelta(days=20)
DAY = f"{OLD:%Y%m%d}"
JOB = UUID(int=floor_uuid(OLD + timedelta(hours=3)).int + 1)
INPUT = key(1, JOB, 0, "input")


@pytest.fixture
def tools(old_ids: None, engine: store.Engine, system: Local, tmp_path: Path) -> Tools:
    """A system whose job of an old day has ended."""
    blobs = Directory(tmp_path, b"")
    blobs.put(INPUT, b"1", "text/plain")
    with engine.begin() as connection:
        for table in PARTITIONED:
            low, high = floor_uuid(OLD), floor_uuid(OLD + timedelta(days=1))
            of = f"PARTITION OF {table} FOR VALUES FROM ('{low}') TO ('{high}')"
            connection.execute(text(f"CREATE TABLE {table}_{DAY} {of}"))
        store.submit(connection, [store.NewJob(JOB, 1, "m", "1", Priority.NORMAL, 60.0, "text/plain", 1, None, INPUT)])
        connection.execute(text("UPDATE jobs SET status = 2, finished_at = now()"))
    return Tools(Settings(), engine, redis.Redis.from_url(system.ps()["valkey"]["url"]), blobs)


def days(tools: Tools) -> list[str]:
    with tools.engine.begin() as connection:
        return store.past_days(connection, NOW - timedelta(days=7))


def jobs(tools: Tools) -> int:
    with tools.engine.begin() as connection:
        return int(connection.execute(text("SELECT count(*) FROM jobs")).scalar_one())


def test_a_day_of_ended_jobs_goes_with_its_blobs(tools: Tools) -> None:
    assert days(tools) == [DAY]
    retention.run(tools)
    assert days(tools) == []
    with pytest.raises(BlobMissing):
        tools.blobs.get(INPUT)
    with tools.engine.begin() as connection:
        assert store.missing_partitions(connection) == []
        assert store.lock(connection, "retention"), "the lock is given back"


@pytest.mark.parametrize(
    "unfinished",
    [
        "UPDATE jobs SET status = 1",
        "INSERT INTO deliveries (id, tenant, job, event, url, body) SELECT id, 1, id, '', '', '' FROM jobs",
    ],
)
def test_a_day_with_an_open_job_or_a_due_delivery_stays(tools: Tools, unfinished: str) -> None:
    with tools.engine.begin() as connection:
        connection.execute(text(unfinished))
    retention.run(tools)
    assert days(tools) == [DAY]
    assert tools.blobs.get(INPUT) == b"1"


def test_a_day_is_past_by_the_databases_clock(slow_clock: None, tools: Tools) -> None:
    since = (datetime.now(UTC) - OLD - timedelta(days=1)).total_seconds()
    for ahead, left in ((1800.0, [DAY]), (5400.0, [])):
        retention.run(replace(tools, settings=Settings(retention=since - ahead)))
        assert days(tools) == left


def test_a_day_stays_while_ids_of_it_may_be_stored(
    database_ahead: Callable[[str], None], engine: store.Engine, tmp_path: Path
) -> None:
    tomorrow = NOW + timedelta(days=1)
    into = tomorrow - datetime.now(UTC) + timedelta(seconds=60)
    database_ahead(f"{into.total_seconds()} seconds")
    retention.run(Tools(Settings(retention=1.0), engine, None, Directory(tmp_path, b"")))  # type: ignore[arg-type]
    late = UUID(int=floor_uuid(tomorrow - timedelta(seconds=1)).int + 1)
    with engine.begin() as connection:
        store.submit(connection, [store.NewJob(late, 1, "m", "1", Priority.NORMAL, 60.0, "text/plain", 1, b"1")])
        assert store.read(connection, [(late, 1)]).keys() == {(late, 1)}


def test_the_jobs_of_a_batch_that_runs_stay_though_they_seem_older(tools: Tools, aged: UUID) -> None:
    """The API that made the batch was ahead of Postgres, by whose clock its jobs were made."""
    ahead = UUID(int=aged.int + (1000 << 80))
    with tools.engine.begin() as connection:
        store.new_batch(connection, store.NewBatch(ahead, 1, "m", "x", "", 10, 60.0))
        assert store.oldest_batch(connection) == ahead
        connection.execute(text("UPDATE batches SET status = 'running', total = 1, first_job = :aged"), {"aged": aged})
        assert store.oldest_batch(connection) == aged


def test_what_a_crash_left_detached_is_dropped(tools: Tools) -> None:
    with tools.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE jobs DETACH PARTITION jobs_{DAY}"))
        connection.execute(text(f"DROP TABLE results_{DAY}"))
    assert days(tools) == [DAY]
    retention.run(tools)
    assert days(tools) == []


def test_one_process_drops_at_a_time(tools: Tools) -> None:
    with tools.engine.begin() as other:
        assert store.lock(other, "retention")
        retention.run(tools)
        assert days(tools) == [DAY]


def test_a_retention_under_a_day_deletes_rows_once_their_blobs_are_gone(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tools.engine.begin() as connection:
        recent = UUID(int=floor_uuid(datetime.now(UTC) - timedelta(minutes=1)).int + 1)
        store.submit(connection, [store.NewJob(recent, 1, "m", "1", Priority.NORMAL, 60.0, "text/plain", 1, b"1")])
        connection.execute(text("UPDATE jobs SET status = 2"))
    short = Tools(Settings(retention=30.0), tools.engine, tools.client, tools.blobs)
    delete = tools.blobs.delete_prefix

    def away(prefix: str) -> None:
        if prefix == job_prefix(1, recent):
            raise BlobUnavailable("away")
        delete(prefix)

    monkeypatch.setattr(tools.blobs, "delete_prefix", away)
    assert retention.run(short) == 0
    assert jobs(tools) == 1
    monkeypatch.undo()
    assert retention.run(short) == 1
    assert jobs(tools) == 0


def test_blobs_that_cannot_be_deleted_keep_their_own_day_alone(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = OLD - timedelta(days=1)
    with tools.engine.begin() as connection:
        of = f"PARTITION OF jobs FOR VALUES FROM ('{floor_uuid(before)}') TO ('{floor_uuid(OLD)}')"
        connection.execute(text(f"CREATE TABLE jobs_{before:%Y%m%d} {of}"))
    delete, held = tools.blobs.delete_prefix, day_prefix(1, f"{before:%Y%m%d}")

    def keep(prefix: str) -> None:
        if prefix == held:
            raise BlobUnavailable("a lock is on it")
        delete(prefix)

    monkeypatch.setattr(tools.blobs, "delete_prefix", keep)
    for _ in range(2):
        retention.run(tools)
        assert days(tools) == [f"{before:%Y%m%d}"]
    told = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert told == [f"the deletion of the blobs under {held} has to wait: a lock is on it"]
    monkeypatch.undo()
    retention.run(tools)
    assert days(tools) == []


def test_a_store_that_cannot_be_used_is_asked_for_nothing_more(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def away(prefix: str = "") -> None:
        asked.append(prefix)
        raise BlobUnavailable("away")

    monkeypatch.setattr(tools.blobs, "delete_prefix", away)
    monkeypatch.setattr(tools.blobs, "check", away)
    with pytest.raises(BlobUnavailable):
        retention.run(tools)
    assert asked == [day_prefix(1, DAY), ""]
    assert days(tools) == [DAY]


def test_once_stopped_it_deletes_nothing_more(tools: Tools) -> None:
    tools.stopped.set()
    retention.run(tools)
    assert (days(tools), tools.blobs.get(INPUT)) == ([DAY], b"1")
    tools.stopped.clear()
    retention.run(tools)
    assert days(tools) == []


def test_webhooks_that_are_past_a_retention_under_a_day_keep_it_going(tools: Tools) -> None:
    low = floor_uuid(datetime.now(UTC) - timedelta(minutes=1)).int
    with tools.engine.begin() as connection:
        store.deliver(connection, [store.Delivery(UUID(int=low + at), 1, JOB, "ping", "", b"") for at in range(1500)])
        connection.execute(text("UPDATE deliveries SET status = 'delivered'"))
    short = Tools(Settings(retention=30.0), tools.engine, tools.client, tools.blobs)
    while retention.run(short):
        pass
    with tools.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM deliveries")).scalar() == 0


AGE = 3600.0


@pytest.fixture
def aged(old_ids: None) -> UUID:
    """An id that was made AGE seconds ago."""
    return UUID(int=floor_uuid(datetime.now(UTC) - timedelta(seconds=AGE)).int + 1)


def codes(client: TestClient, here: str, calls: list[str], listed: str) -> list[int]:
    """What each call answers, `METHOD path`; and how many a list shows."""
    asked = (call.split(" ") for call in calls)
    answers = [client.request(method, f"{here}{path}").status_code for method, path in asked]
    return [*answers, len(client.get(listed).json()["data"])]


def test_a_job_is_gone_to_the_second_though_its_row_is_there(
    engine: store.Engine, serve: Callable[..., TestClient], aged: UUID, tmp_path: Path
) -> None:
    with serve(retention=AGE - 1) as past, serve(retention=AGE + 60) as kept:
        job = store.NewJob(aged, 1, "m", "1", Priority.NORMAL, 60.0, "application/json", 1, b"1")
        with engine.begin() as connection:
            store.submit(connection, [job])
        finish(engine, [aged], tmp_path, Done(b"2", "application/json"))
        here = f"/v1/jobs/{to_text('job', aged)}"
        reads = ["GET ", "HEAD ", "GET ?wait=1", "GET /result", "GET /input", "GET /events", "POST /cancel"]
        calls = [*reads, "POST /retry", "DELETE "]
        assert codes(past, here, calls, "/v1/jobs") == [404] * len(calls) + [0]
        assert past.get(here).json()["code"] == "job_not_found"
        assert codes(kept, here, reads, "/v1/jobs") == [200] * len(reads) + [1]
        assert codes(kept, here, ["POST /retry", "DELETE "], "/v1/jobs") == [202, 204, 1]


def test_so_are_a_batch_and_a_delivery(engine: store.Engine, serve: Callable[..., TestClient], aged: UUID) -> None:
    with engine.begin() as connection:
        new = store.NewBatch(id=aged, tenant=1, model="m", blob="x", etag="", size=1, expires_in=60.0)
        store.new_batch(connection, new)
        store.deliver(connection, [store.Delivery(aged, 1, aged, "ping", "https://example.com/", b"{}")])
    batch, delivery = f"/v1/batches/{to_text('bat', aged)}", f"/v1/deliveries/{to_text('whd', aged)}"
    reads = ["GET ", "POST /cancel", "GET /output", "GET /error"]
    for after, answers in ((-1, [404, 404, 404, 404, 0]), (60, [200, 200, 409, 409, 1])):
        with serve(retention=AGE + after) as client:
            assert codes(client, batch, reads, "/v1/batches") == answers
            replayed = 404 if after < 0 else 202
            assert codes(client, delivery, ["POST /replay"], "/v1/deliveries") == [replayed, answers[-1]]
