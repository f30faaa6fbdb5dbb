"""The control plane against a real Postgres and Redis: pauses and the sweeps, figures of pools, notices of a change."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

import api.lineup
from api.parts import Parts, build, running
from tests.integration.stored import claim, end
from tests.local import Local, wait_until
from tundish import queue, store
from tundish.errors import Unavailable
from tundish.ids import floor_uuid, new_uuid, shadow_id
from tundish.job import Priority, Status
from tundish.routing import Routing
from tundish.settings import Settings
from workers.batch import Target
from workers.chores import Tools, survey
from workers.heart import Heart
from workers.pauses import Pauses

M1, M2, N1 = Target("m", "1"), Target("m", "2"), Target("n", "1")


def version(target: Target, pool: str = "default") -> store.Version:
    return store.Version(target.model, target.version, pool, "application/json", "application/json", None, None, 8, 0.0)


def job(target: Target, id: UUID | None = None, **options: object) -> store.NewJob:
    priority = Priority.NORMAL
    return store.NewJob(id or new_uuid(), 1, *target_of(target), priority, 60.0, "application/json", 1, b"1", **options)  # type: ignore[arg-type]  # as each test gives them


def target_of(target: Target) -> tuple[str, str]:
    return target.model, target.version


@pytest.fixture
def catalog(engine: store.Engine) -> store.Engine:
    """A database in which m@1 and m@2 are of the pool `default`, n@1 of `gpu`."""
    with engine.begin() as connection:
        store.register(connection, [version(M1), version(M2), version(N1, "gpu")])
    return engine


def listeners(emptied: redis.Redis) -> int:
    """Who listens on the channel, those of the running system among them: channels know no database."""
    return int(emptied.pubsub_numsub(queue.CATALOG)[0][1])


def submit(engine: store.Engine, *jobs: store.NewJob) -> None:
    with engine.begin() as connection:
        store.submit(connection, jobs)


def pause(engine: store.Engine, kind: str, name: str) -> None:
    with engine.begin() as connection:
        store.pause(connection, kind, name)  # type: ignore[arg-type]  # one of the three kinds


@pytest.mark.parametrize(
    ("kind", "name", "held"),
    [
        ("pool", "default", {M1, M2}),
        ("pool", "gpu", {N1}),
        ("model", "m", {M1, M2}),
        ("version", "m@2", {M2}),
        ("pool", "m", set()),
        ("model", "m@2", set()),
    ],
)
def test_what_a_pause_holds(catalog: store.Engine, kind: str, name: str, held: set[Target]) -> None:
    pools = {M1: "default", M2: "default", N1: "gpu"}
    for _ in range(2):
        pause(catalog, kind, name)
        with catalog.begin() as connection:
            stopped = store.paused(connection)
        assert {each for each, pool in pools.items() if stopped.holds(pool, each.model, each.version)} == held
    with catalog.begin() as connection:
        store.resume(connection, kind, name)  # type: ignore[arg-type]  # one of the three kinds
        assert store.paused(connection) == store.Paused()


def test_the_sweep_sends_nothing_of_what_is_paused_until_it_is_resumed(
    catalog: store.Engine, emptied: redis.Redis
) -> None:
    submit(catalog, job(M1), job(M2), job(N1))
    with catalog.begin() as connection:
        connection.execute(text("UPDATE jobs SET sent_at = now() - interval '1 hour'"))
    pause(catalog, "version", "m@1")
    pause(catalog, "pool", "gpu")
    tools = Tools(Settings(), catalog, emptied, None)  # type: ignore[arg-type]  # it needs no blobs
    waiting = [queue.Queue(*target_of(each), Priority.NORMAL).name for each in (M1, M2, N1)]
    chore = survey.Survey()
    assert chore.run(tools) == 1
    assert [emptied.llen(name) for name in waiting] == [0, 1, 0]
    with catalog.begin() as connection:
        store.resume(connection, "version", "m@1")
        store.resume(connection, "pool", "gpu")
    assert chore.run(tools) == 2
    assert [emptied.llen(name) for name in waiting] == [1, 1, 1]


def test_a_worker_hears_of_a_pause_at_once(
    catalog: store.Engine, emptied: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pauses.LOOK", 3600.0)  # a notice alone makes it look
    heard: list[frozenset[Target]] = []
    came = threading.Event()

    def on_change(paused: frozenset[Target]) -> None:
        heard.append(paused)
        came.set()

    pause(catalog, "model", "n")
    before = listeners(emptied)
    pauses = Pauses(catalog, emptied, "default", lambda: [M1, M2, N1], on_change)
    pauses.start()
    assert heard == [frozenset({N1})]  # it looked before it began
    came.clear()
    wait_until(lambda: listeners(emptied) > before, "it listens")
    pause(catalog, "pool", "default")
    emptied.publish(queue.CATALOG, b"")
    assert came.wait(30)
    assert heard == [frozenset({N1}), frozenset({M1, M2, N1})]
    pauses.stop()
    emptied.publish(queue.CATALOG, b"")
    wait_until(lambda: "pauses" not in {each.name for each in threading.enumerate()}, "it ends")


def test_every_api_process_goes_by_a_new_routing_at_once(
    system: Local, database_url: str, catalog: store.Engine, emptied: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.lineup, "EVERY", 3600.0)  # a notice alone makes it look
    settings = Settings(
        database_url=database_url,
        redis_url=system.ps()["valkey"]["url"] + "?db=7",
        blob_url="file:///nowhere",
        api_key="key",
    )

    async def drawn(parts: Parts) -> str:
        return (await parts.models.route("m")).known.version.version

    def weights(parts: Parts) -> object:
        shown = parts.models.describe("m", {})
        return shown and shown["aliases"]["default"]["weights"]

    async def both() -> None:
        one, other = build(settings), build(settings)
        before = listeners(emptied)
        async with running(one), running(other):
            assert (await drawn(one), await drawn(other)) == ("1", "1")
            await asyncio.to_thread(wait_until, lambda: listeners(emptied) == before + 2, "both listen")
            await one.change(store.route, "m", "default", Routing({"2": 1}))
            assert await drawn(one) == "2"
            await asyncio.to_thread(wait_until, lambda: weights(other) == {"2": 1}, "the other has heard of it")
            assert await drawn(other) == "2"

    asyncio.run(both())


def test_the_first_version_becomes_the_default_and_later_ones_never_move_it(catalog: store.Engine) -> None:
    with catalog.begin() as connection:
        store.route(connection, "m", "default", Routing({"2": 1}, shadow="1"))
        store.register(connection, [version(Target("m", "3")), version(M1)])
        assert store.catalog(connection, 30).aliases == {
            "m": {"default": Routing({"2": 1}, shadow="1")},
            "n": {"default": Routing({"1": 100})},
        }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"artifact": f"sha256:{'0' * 64}"}, True),
        ({"input_schema": {"type": "string"}}, True),
        ({"output_type": "text/plain"}, True),
        ({"max_batch": 9, "pool": "gpu", "timeout": 1.0}, False),
        ({}, False),
    ],
    ids=["artifact", "schema", "type", "limits", "nothing"],
)
def test_a_version_that_changes_what_it_promises_is_told(
    catalog: store.Engine, change: dict[str, Any], told: bool
) -> None:
    known = replace(version(M1), artifact=f"sha256:{'1' * 64}")
    changed = replace(known, **change)
    with catalog.begin() as connection:
        store.register(connection, [known])
        assert store.register(connection, [changed, version(M2), version(Target("m", "3"))]) == [changed] * told
        assert store.catalog(connection, 30).versions["m", "1"] == replace(changed, workers=[])
        assert store.register(connection, [changed]) == []


def test_workers_that_start_together_wait_for_each_other_in_one_order(catalog: store.Engine) -> None:
    def write(versions: list[store.Version]) -> None:
        with catalog.begin() as connection:
            store.register(connection, versions)

    def waits() -> bool:
        with catalog.begin() as connection:
            held = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(connection.execute(text(held)).scalar_one())

    with ThreadPoolExecutor(1) as pool:
        with catalog.begin() as connection:
            store.register(connection, [version(M1)])
            other = pool.submit(write, [version(N1), version(M1)])
            wait_until(waits, "the other waits for this one")
            store.register(connection, [version(N1)])
        other.result(10)


def test_a_version_that_promises_the_same_in_other_words_has_not_changed(catalog: store.Engine) -> None:
    made = replace(version(Target("pair", "1")), input_schema={"default": (1, 2)})
    with catalog.begin() as connection:
        store.register(connection, [made])
        assert store.register(connection, [made]) == []


def test_a_shadow_is_stored_found_and_deleted_with_its_job(catalog: store.Engine) -> None:
    id = new_uuid()
    copy = job(M2, shadow_id(id), shadow_of=id, webhook="http://127.0.0.1/")
    submit(catalog, job(M1, id, shadow=copy))
    with catalog.begin() as connection:
        assert store.shadow(connection, 1, id) == copy.id
        assert store.shadow(connection, 2, id) is None
        assert store.shadow(connection, 1, copy.id) is None  # a shadow has none, whatever its bit leads to
        assert store.webhooks_of(connection, [copy.id]) == {}
        search = store.Search(before=UUID(int=(1 << 128) - 1), since=UUID(int=0))
        assert [each.id for each in store.list_jobs(connection, 1, search).jobs] == [id]
        assert not store.delete(connection, 1, id, "")
        store.cancel(connection, 1, id)
        assert not store.delete(connection, 2, id, "")
        assert store.delete(connection, 1, id, "")
        for table in ("jobs", "requests", "results"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


def test_deleting_a_shadow_leaves_its_job(catalog: store.Engine) -> None:
    id = new_uuid()
    submit(catalog, job(M1, id, shadow=job(M2, shadow_id(id), shadow_of=id)))
    with catalog.begin() as connection:
        store.cancel(connection, 1, shadow_id(id))
        assert store.delete(connection, 1, shadow_id(id), "")
        assert store.read(connection, [(id, 1)])[id, 1].status is Status.QUEUED


@pytest.mark.usefixtures("old_ids")
def test_arrivals_are_counted_from_the_ids(catalog: store.Engine) -> None:
    def at(seconds_ago: float) -> UUID:
        return UUID(int=floor_uuid(datetime.now(UTC) - timedelta(seconds=seconds_ago)).int + new_uuid().int % (1 << 64))

    submit(catalog, *(job(M1, at(20)) for _ in range(30)), job(M2, at(200)), job(N1, at(400)))
    with catalog.begin() as connection:
        found = {(each.model, each.version): each.per_s for each in store.arrivals(connection, within=300)}
        assert found == {("m", "1"): 0.5, ("m", "2"): 0.0}
        # Where the budget ends, the rate is over the seconds that it reached.
        [newest] = store.arrivals(connection, within=300, budget=30)
        assert newest.per_s == pytest.approx(30 / 20, rel=0.2)
    submit(catalog, *(job(M1, at(-2)) for _ in range(30)))  # by a clock that is ahead
    with catalog.begin() as connection:
        [ahead] = store.arrivals(connection, within=300, budget=30)
    assert ahead.per_s == 30


def test_what_workers_hold_is_counted_by_version(catalog: store.Engine) -> None:
    of_m, of_n = [job(M1) for _ in range(4)], [job(N1) for _ in range(2)]
    submit(catalog, *of_m, *of_n)

    def running() -> dict[tuple[str, str], int]:
        with catalog.begin() as connection:
            return store.running(connection)

    assert running() == {}
    first, _ = claim(catalog, [each.id for each in of_m[:3]])
    second, [held] = claim(catalog, [of_n[0].id])
    assert running() == {("m", "1"): 3, ("n", "1"): 1}
    with catalog.begin() as connection:
        store.part(connection, first, new_uuid(), [of_m[0].id])
        store.record(connection, [end(held)], [store.Ran(second, 1.5)])
    assert running() == {("m", "1"): 3}
    with catalog.begin() as connection:
        store.release(connection, [first])
    assert running() == {("m", "1"): 1}


PLACES = {"m@1": {"place": "host", "bytes": 1 << 40}}


def worker(state: str = "idle") -> store.Worker:
    return store.Worker(new_uuid(), "gpu", "cuda:0", "host", 1, ["m@1"], state, 80, 20, 64, 12.5, 3.5, PLACES)


def test_a_worker_drains_stops_and_is_lost(catalog: store.Engine) -> None:
    here = worker()
    heart = Heart(catalog, lambda: here, list, 30.0, Mock())

    def states() -> list[str]:
        with catalog.begin() as connection:
            return [each.state for each in store.workers(connection, seen_within=3600, lost_after=30)]

    heart.start()
    assert states() == ["idle"]
    heart.drain()
    wait_until(lambda: states() == ["draining"], "it says at once that it drains", 5)
    with catalog.begin() as connection:
        [shown] = store.workers(connection, seen_within=60)
        connection.execute(text("UPDATE workers SET seen_at = now() - interval '40 seconds'"))
    assert replace(shown, state="idle", seen_at=None) == here
    assert states() == ["lost"]
    heart.stop()
    assert states() == ["stopped"]


def test_a_heart_beats_on_while_postgres_is_away_and_stops_without_it(
    catalog: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart = Heart(catalog, worker, list, 30.0, Mock())

    def away(*_: object) -> None:
        raise OperationalError("see_worker", None, Exception("the connection is cut"))

    def shown() -> list[str]:
        with catalog.begin() as connection:
            return [each.state for each in store.workers(connection, seen_within=3600)]

    with monkeypatch.context() as cut:
        cut.setattr(store, "see_worker", away)
        with pytest.raises(store.StoreError):
            heart.start()
    heart.beat()
    wait_until(lambda: shown() == ["idle"], "it says that it is there")
    monkeypatch.setattr(store, "see_worker", away)
    heart.stop()


def test_a_worker_counts_as_serving_until_it_stops_or_is_lost(catalog: store.Engine) -> None:
    each = {state: worker(state) for state in ("idle", "busy", "draining", "stopped", "lost")}
    with catalog.begin() as connection:
        for one in each.values():
            store.see_worker(connection, one)
        serving = store.catalog(connection, seen_within=30).versions["m", "1"].workers
    assert {one["id"] for one in serving} == {str(each[state].id) for state in ("idle", "busy", "draining")}


@pytest.mark.parametrize("answers", [True, False])
def test_who_waits_for_the_catalog_waits_for_no_more_than_one_read(
    database_url: str, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    begun: asyncio.Queue[asyncio.Event] = asyncio.Queue()
    reads = 0

    async def read(*_: object) -> store.Catalog:
        nonlocal reads
        reads += 1
        over = asyncio.Event()
        await begun.put(over)
        await over.wait()
        if not answers:
            raise OSError("no answer")
        return store.Catalog({}, {}, store.Paused())

    async def ask(models: api.lineup.Models) -> Sequence[object]:
        asked = [asyncio.create_task(models.refresh()) for _ in range(6)]
        all_of_them = asyncio.gather(*asked, return_exceptions=True)
        while not all_of_them.done():
            following = asyncio.create_task(begun.get())
            either: set[asyncio.Future[Any]] = {following, all_of_them}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result().set()
            following.cancel()
        return await all_of_them

    monkeypatch.setattr(store, "run", read)
    ends = asyncio.run(ask(api.lineup.Models(store.async_engine(database_url), 30.0)))
    assert reads == (2 if answers else 1)
    assert [isinstance(end, Unavailable) for end in ends] == [not answers] * 6
