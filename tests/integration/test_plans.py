"""How Postgres goes about the statements of the hot path: one partition, no nested loops, HOT updates."""

import ast
import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import event, text

from tests.integration.stored import claim, end, submit
from tundish import store
from tundish.ids import floor_uuid, new_uuid
from tundish.job import Priority


def test_what_locks_rows_changes_none_in_the_same_statement() -> None:
    """Postgres 18.4 breaks off there where another has just changed a row, and reads freed memory: docs/decisions."""
    found = 0
    for path in Path(store.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Constant, ast.JoinedStr)) and "SKIP LOCKED" in (said := ast.unparse(node)):
                found += 1
                assert not re.search(r"(UPDATE|DELETE FROM|INSERT INTO) (jobs|requests|results|deliveries)", said), path
    assert found > 5


def overhear(engine: store.Engine, hear: Callable[["psycopg.Connection[Any]", str, Any], None]) -> None:
    """Call `hear` with each statement that the driver is about to run for `engine`, and its parameters."""

    class Overheard(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> "Overheard":
            hear(self.connection, query, params)
            return super().execute(query, params, **options)

    event.listen(engine, "connect", lambda driver, _: setattr(driver, "cursor_factory", Overheard))
    engine.dispose()


def rows_read(engine: store.Engine, verb: Callable[[store.Connection], object]) -> int:
    """How many rows of jobs the statements of a verb look at."""
    found = 0

    def scanned(node: dict[str, Any]) -> int:
        rows: int = sum(map(scanned, node.get("Plans", [])))
        if node.get("Relation Name", "").startswith("jobs_") and "Scan" in node["Node Type"]:
            rows += round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        return rows

    def analyse(connection: store.Connection, cursor: Any, statement: str, given: Any, *_: object) -> None:
        nonlocal found
        if "jobs" in statement and not statement.startswith("EXPLAIN"):
            with connection.begin_nested() as only_looked:
                [plan] = connection.exec_driver_sql("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, given).scalar_one()
                only_looked.rollback()
            found += scanned(plan["Plan"])

    event.listen(engine, "before_cursor_execute", analyse)
    with engine.begin() as connection:
        verb(connection)
    event.remove(engine, "before_cursor_execute", analyse)
    return found


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

    def explain(connection: "psycopg.Connection[Any]", statement: str, given: Any) -> None:
        if "jobs" in statement:
            with psycopg.Cursor(connection) as cursor:
                plans.extend(line for (line,) in cursor.execute("EXPLAIN " + statement, given))

    overhear(engine, explain)
    claimed, jobs = claim(engine, ids)
    with engine.begin() as connection:
        store.record(connection, [end(job) for job in jobs], [store.Ran(claimed, 1.5)])
        store.read(connection, [(id, 1) for id in ids])
    engine.dispose()
    assert sum("Hash" in line for line in plans) >= 3
    assert not [line for line in plans if "Nested Loop" in line]
    assert not [line for line in plans if "Seq Scan on jobs" in line]


def test_what_runs_is_counted_by_primary_key(engine: store.Engine) -> None:
    """Also where the planner expects many claims."""
    ids = submit(engine, 9000)
    for at in range(0, 2000, 2):
        claim(engine, ids[at : at + 2])
    plan: list[str] = []

    def explain(connection: store.Connection, cursor: Any, statement: str, *_: object) -> None:
        if not statement.startswith("EXPLAIN"):
            plan.extend(line for (line,) in connection.exec_driver_sql("EXPLAIN ANALYZE " + statement))

    with engine.begin() as connection:
        connection.execute(text("ANALYZE jobs, claims"))
        event.listen(engine, "before_cursor_execute", explain)
        assert store.running(connection) == {("m", "1"): 2000}
    ran = [line for line in plan if "on jobs_2" in line and "never executed" not in line]
    assert len(ran) == 1
    assert "Index Scan" in ran[0]


def test_what_a_key_holds_of_a_deleted_job_is_found_by_index(engine: store.Engine) -> None:
    [id] = submit(engine)
    plan: list[str] = []

    def explain(connection: store.Connection, cursor: Any, statement: str, given: Any, *_: object) -> None:
        if "idempotency" in statement and not statement.startswith("EXPLAIN"):
            plan.extend(line for (line,) in connection.exec_driver_sql("EXPLAIN " + statement, given))

    with engine.begin() as connection:
        assert store.cancel(connection, 1, id)
        connection.execute(
            text("""
                INSERT INTO idempotency (tenant, method, path, key, fingerprint, status, location, body, ended)
                SELECT 1, 'POST', '/v1/jobs', n, '', 202, n, '', '' FROM generate_series(1, 5000) n
            """)
        )
        connection.execute(text("ANALYZE idempotency"))
        event.listen(engine, "before_cursor_execute", explain)
        assert store.delete(connection, 1, id, "1", "2")
    assert [line for line in plan if "idempotency_location_idx" in line], plan


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


def test_what_the_api_runs_outside_a_transaction_is_one_statement(engine: store.Engine) -> None:
    """Flush, Reads and Waiters: a second statement would be on its own when the first has failed."""
    run: list[str] = []
    overhear(engine, lambda _, statement, __: run.append(statement))
    with engine.connect():
        run.clear()  # what a connection begins with
    [id] = submit(engine)
    assert len(run) == 1
    with engine.begin() as connection:
        store.read(connection, [(id, 1)])
        assert len(run) == 2
        store.states(connection, [id])
        assert len(run) == 3


def test_settled_webhooks_are_read_neither_to_bury_or_count_others_nor_before_their_day_is_dropped(
    engine: store.Engine,
) -> None:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=6)
    low, high = floor_uuid(day), floor_uuid(day + timedelta(days=1))
    new = [store.Delivery(UUID(int=low.int + at), 1, low, "ping", "", b"") for at in range(9000)]
    with engine.begin() as connection:
        bounds = f"FOR VALUES FROM ('{low}') TO ('{high}')"
        connection.execute(text(f"CREATE TABLE deliveries_{day:%Y%m%d} PARTITION OF deliveries {bounds}"))
        store.deliver(connection, new)
        connection.execute(text("UPDATE deliveries SET status = 'delivered'"))
    with store.autocommit(engine).connect() as connection:
        connection.execute(text("VACUUM ANALYZE deliveries"))
    plan: list[str] = []

    def explain(connection: store.Connection, cursor: Any, statement: str, given: Any, *_: object) -> None:
        if "FROM deliveries" in statement and not statement.startswith("EXPLAIN"):
            plan.extend(line for (line,) in connection.exec_driver_sql("EXPLAIN " + statement, given))

    event.listen(engine, "before_cursor_execute", explain)
    with engine.begin() as connection:
        assert store.bury(connection, "{}") == 0
        assert not store.is_open(connection, f"{day:%Y%m%d}")
        assert not any(each.number for each in store.undelivered(connection))
    scans = [line for line in plan if "Scan" in line and f"deliveries_{day:%Y%m%d}" in line]
    assert len([line for line in scans if "Index" in line]) >= 7
    assert not [line for line in scans if "Seq Scan" in line]


def test_when_the_next_of_each_queue_expires_is_one_look_at_what_is_open(engine: store.Engine) -> None:
    """However many queues there are."""
    ids = submit(engine, 3000)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET model = 'm' || get_byte(uuid_send(id), 15) % 50"))
        store.survey(connection, new_uuid())
        connection.execute(text("UPDATE marks SET expires_at = now()"))
    assert rows_read(engine, lambda connection: store.expire(connection, b"{}")) < 5 * len(ids)
    with engine.begin() as connection:
        [(marks, first)] = connection.execute(text("SELECT count(*), min(expires_at) > now() FROM marks"))
    assert (marks, first) == (50, True)


@pytest.mark.parametrize("canceled", [False, True])
def test_a_look_at_a_batch_reads_none_of_the_jobs_of_others(engine: store.Engine, canceled: bool) -> None:
    """Though they lie between its own: they came while its file was read."""
    id = new_uuid()
    with engine.begin() as connection:
        store.new_batch(connection, store.NewBatch(id, 1, "m", "blob", "etag", 2, 60.0))
        store.begin_batch(connection, id, 200)

    def batch() -> store.BatchRow:
        with engine.begin() as connection:
            found = store.read_batch(connection, 1, id)
        assert found
        return found

    for page in (0, 1):
        jobs = [
            store.NewJob(new_uuid(), 1, "m", "1", Priority.LOW, 60.0, "application/json", 1, b"1") for _ in range(100)
        ]
        lines = [store.NewLine(100 * page + at, str(at), job.id) for at, job in enumerate(jobs, 1)]
        before = batch()
        with engine.begin() as connection:
            assert store.add_lines(connection, before, lines, jobs, end=page + 1, lease=60.0)
        submit(engine, 5000)
    whole = batch()

    def look(connection: store.Connection) -> None:
        if canceled:
            assert len(store.cancel_lines(connection, whole, limit=1000)) == 200
        else:
            assert store.count_lines(connection, whole).queued == 200

    assert rows_read(engine, look) <= 1000


def test_a_day_that_the_marks_have_passed_is_dropped_without_a_look_at_its_jobs(
    old_ids: None, engine: store.Engine
) -> None:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=9)
    low, high, name = floor_uuid(day), floor_uuid(day + timedelta(days=1)), f"{day:%Y%m%d}"
    id = UUID(int=low.int + 1)
    with engine.begin() as connection:
        for table in ("jobs", "requests"):
            bounds = f"FOR VALUES FROM ('{low}') TO ('{high}')"
            connection.execute(text(f"CREATE TABLE {table}_{name} PARTITION OF {table} {bounds}"))
        store.submit(connection, [store.NewJob(id, 1, "m", "1", Priority.LOW, 60.0, "text/plain", 1, b"1")])
        store.survey(connection, new_uuid())
        assert store.is_open(connection, name)
        connection.execute(text("UPDATE jobs SET status = 2"))
        store.survey(connection, new_uuid())

    def look(connection: store.Connection) -> None:
        assert not store.is_open(connection, name)

    assert rows_read(engine, look) == 0


@pytest.mark.parametrize("retried", [False, True])
def test_a_look_at_the_outbox_is_planned_once(database_url: str, retried: bool) -> None:
    rooms: dict[str, Any] = {"quick": {}, "quick_limit": 9, "others": {}, "unknown": 9, "others_limit": 9}
    plans = text(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
        " WHERE statement LIKE '%lanes%' AND statement NOT LIKE '%pg_prepared_statements%'"
    )

    def look(connection: store.Connection) -> list[int]:
        store.take(connection, retried=retried, after=UUID(int=0), lease=30.0, **rooms)
        return list(connection.execute(plans).one())

    async def run() -> list[list[int]]:
        engine = store.async_engine(database_url, 1, planned_once=True)
        found = [await store.run(engine, look) for _ in range(3)]
        await engine.dispose()
        return found

    assert asyncio.run(run()) == [[1, 0], [2, 0], [3, 0]]
