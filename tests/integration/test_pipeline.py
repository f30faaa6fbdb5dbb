"""The stages of a worker between its threads, with a real Postgres and Redis."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.integration.stored import QUEUE, WORKER, read, submit
from tests.local import Local, wait_until
from tests.shelves import NO_ARTIFACTS, alone
from tundish import Batch, Model, Reject, queue, store
from tundish.blobs import Directory, job_prefix, key
from tundish.catalog import Served
from tundish.ids import new_uuid
from tundish.job import Status
from tundish.outcome import Canceled
from tundish.settings import Settings
from workers import connect
from workers.batch import Batcher, Draft, Limits, Target
from workers.consume import Consumers
from workers.events import Events
from workers.gpu import Cpu
from workers.intake import Intake, strategy
from workers.notify import Notifier
from workers.pace import Pace
from workers.run import Pipeline, Tools
from workers.shelf import Shelf

TARGET = Target("m", "1")
#: Whoever waits for a lock.
WAITS = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Named(Model[int, int]):
    """Runs the jobs of `stored`."""

    name = "m"
    version = "1"

    def predict(self, batch: Batch[int]) -> list[int | Reject]:
        return list(batch)


@pytest.fixture
def client(system: Local) -> Iterator[redis.Redis]:
    with connect.redis_client(system.ps()["valkey"]["url"] + "?db=7") as client:
        client.flushdb()
        yield client


@pytest.fixture
def shelf() -> Shelf:
    shelf = Shelf([Served(Named)], Cpu(), NO_ARTIFACTS, alone(), host_budget=lambda: 0.0)
    shelf.fill()
    return shelf


@pytest.fixture
def intake(client: redis.Redis, shelf: Shelf) -> Iterator[Intake]:
    intake = Intake(Batcher({TARGET: Limits(4, 0.0)}), client, Consumers([TARGET]), shelf)
    yield intake
    intake.close()


@pytest.fixture
def pipeline(
    engine: store.Engine, kept: store.Kept, client: redis.Redis, shelf: Shelf, intake: Intake, tmp_path: Path
) -> Pipeline:
    """Its threads have not started."""
    blobs, events, device = Directory(tmp_path, b""), Events(client, 60), Cpu()
    nowhere = cast(Any, None)  # no model fails to load
    told = Notifier(client)
    tools = Tools(
        WORKER, Settings(), engine, engine, kept, client, told, events, blobs, shelf, device, nowhere, Pace(0.0)
    )
    return Pipeline(tools, intake, on_failure=lambda: None)


def claims(engine: store.Engine, what: str) -> list[Any]:
    with engine.begin() as connection:
        return list(connection.execute(text(f"SELECT {what} FROM claims")).scalars())


@pytest.mark.parametrize("fetched", [False, True])
def test_a_claim_that_is_tried_again_starts_where_its_predict_still_follows_at_once(
    pipeline: Pipeline, intake: Intake, engine: store.Engine, monkeypatch: pytest.MonkeyPatch, fetched: bool
) -> None:
    """While Postgres was away, a batch that had been fetched may have come first."""
    monkeypatch.setattr("workers.persist.RETRY", 0.0)

    def away(*given: Any, **options: Any) -> Any:
        monkeypatch.undo()
        if fetched:
            pipeline._upcoming.put(cast(Any, "a batch"))
        raise OperationalError("claim", None, Exception("away"))

    monkeypatch.setattr(store, "claim", away)
    pipeline._upcoming.hungry = True  # the device waits
    ids = submit(engine, 2)
    intake.put(QUEUE, [queue.Message(tuple(id.hex for id in ids))])
    threading.Thread(target=pipeline._claim, daemon=True).start()
    [begun] = wait_until(lambda: claims(engine, "started_at IS NOT NULL") or None, "the claim is made")
    assert begun != fetched


def run_two_batches(pipeline: Pipeline, intake: Intake, engine: store.Engine) -> None:
    """Of four jobs each; the second is claimed while the first runs, as where they are known to take little."""
    pipeline._lead.took(TARGET, 0.01)
    intake.ran(TARGET, 0.01)
    for id in submit(engine, 8):
        intake.put(QUEUE, [queue.Message((id.hex,))])
    pipeline.start()


def test_the_next_batch_is_collated_while_one_runs(
    pipeline: Pipeline, intake: Intake, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    collated: Queue[str] = Queue()
    ran: Queue[str] = Queue()
    by: list[str] = []

    def collate(model: Named, items: Sequence[int]) -> str:
        collated.put(threading.current_thread().name)
        return f"{len(items)} collated"

    def predict(model: Named, batch: Batch[int]) -> list[int | Reject]:
        if not by:  # the first, and the second is collated meanwhile
            by.extend(collated.get(timeout=10) for _ in range(2))
        ran.put(batch.collated)
        return list(batch)

    monkeypatch.setattr(Named, "collate", collate)
    monkeypatch.setattr(Named, "predict", predict)
    run_two_batches(pipeline, intake, engine)
    assert [ran.get(timeout=20) for _ in range(2)] == ["4 collated"] * 2
    assert by[1] == "ahead"
    assert pipeline.stop(20)
    assert collated.empty()  # each once


def test_nothing_is_kept_that_was_collated_with_a_job_that_was_canceled_meanwhile(
    pipeline: Pipeline, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = list[list[str]]()

    def predict(model: Named, batch: Batch[int]) -> list[int | Reject]:
        assert prepared.ahead
        ran.append([batch.collated, *prepared.ahead.result().collated.values()])
        return list(batch)

    monkeypatch.setattr(Named, "max_cost", 2)
    monkeypatch.setattr(Named, "collate", lambda model, items: f"{len(items)} collated")
    monkeypatch.setattr(Named, "predict", predict)
    ids = submit(engine, 4)
    [claim] = pipeline._custody.take([Draft(TARGET, tuple(id.hex for id in ids))], begin=False)
    decoded = pipeline._decoded(claim)
    assert decoded
    prepared = pipeline._with_plan(decoded)
    assert prepared.ahead
    assert len(prepared.ahead.result(10).collated) == 2
    with engine.begin() as connection:
        assert store.cancel(connection, 1, claim.jobs[0].id)
    prediction = pipeline._run(prepared)
    assert prediction
    assert [isinstance(each, Canceled) for each in prediction.results] == [True, False, False, False]
    assert ran == [["1 collated", "2 collated"], ["2 collated"]]


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_quick_runs_before_postgres_has_said_that_it_may(
    pipeline: Pipeline, engine: store.Engine, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """And nothing comes of a job that was canceled by then; of what is not quick it does not run at all."""
    ran, predictions = Queue[int](), Queue[Any]()

    def predict(model: Named, batch: Batch[int]) -> list[int | Reject]:
        ran.put(len(batch))
        return list(batch)

    monkeypatch.setattr(Named, "predict", predict)
    pipeline._lead.took(TARGET, 0.01 if quick else 1.0)
    ids = submit(engine, 4)
    [claim] = pipeline._custody.take([Draft(TARGET, tuple(id.hex for id in ids))], begin=False)
    prepared = pipeline._decoded(claim)
    assert prepared
    with engine.begin() as connection:
        assert store.cancel(connection, 1, claim.jobs[0].id)
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM claims FOR UPDATE"))
        threading.Thread(target=lambda: predictions.put(pipeline._run(prepared)), daemon=True).start()
        wait_until(lambda: waits(engine), "the start waits")
        if quick:
            assert ran.get(timeout=10) == 4
        assert ran.empty()
    prediction = predictions.get(timeout=10)
    assert [isinstance(each, Canceled) for each in prediction.results] == [True, False, False, False]
    assert quick or ran.get() == 3


def waits(engine: store.Engine) -> bool:
    """Whether a statement waits for a lock."""
    with engine.begin() as connection:
        return bool(connection.execute(text(f"SELECT {WAITS}")).all())


@pytest.mark.parametrize("lost", ["answer", "claim"])
def test_what_ran_is_not_run_again_where_the_answer_to_its_start_is_lost(
    pipeline: Pipeline, engine: store.Engine, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    ran = list[int]()

    def predict(model: Named, batch: Batch[int]) -> list[int | Reject]:
        ran.append(len(batch))
        if lost == "answer":
            wait_until(lambda: waits(engine), "the start waits")
            with engine.begin() as connection:
                connection.execute(text(f"SELECT pg_terminate_backend(pid) {WAITS}"))
        return list(batch)

    monkeypatch.setattr(Named, "predict", predict)
    pipeline._lead.took(TARGET, 0.01)
    [id] = submit(engine)
    [claim] = pipeline._custody.take([Draft(TARGET, (id.hex,))], begin=False)
    prepared = pipeline._decoded(claim)
    assert prepared
    with engine.connect() as connection:
        connection.execute(text("SELECT FROM claims FOR UPDATE" if lost == "answer" else "DELETE FROM claims"))
        if lost == "claim":
            connection.commit()
        prediction = pipeline._run(prepared)
    assert ran == [1]
    assert (prediction is None) == (lost == "claim")


def test_nothing_is_collated_ahead_beside_a_job_on_its_last_attempt(
    pipeline: Pipeline, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two kills the process, it takes no neighbour along for good."""
    monkeypatch.setattr(Named, "collate", lambda model, items: None)
    last, *others = submit(engine, 3)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET deaths = 2 WHERE id = :id"), {"id": last})

    def planned(id: UUID) -> tuple[UUID, bool]:
        [claim] = pipeline._custody.take([Draft(TARGET, (id.hex,))], begin=False)
        decoded = pipeline._decoded(claim)
        assert decoded
        return claim.id, pipeline._with_plan(decoded).ahead is not None

    lone, ahead = planned(last)
    assert not ahead
    assert not planned(others[0])[1]
    pipeline._custody.let_go([lone])  # it is recorded
    assert planned(others[1])[1]


def test_a_batch_that_is_divided_is_not_collated_while_the_next_one_is(
    pipeline: Pipeline, intake: Intake, engine: store.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, second, met = (threading.Event() for _ in range(3))
    meets, calls, ran = threading.Barrier(2), count(1), Queue[int]()

    def collate(model: Named, items: Sequence[int]) -> None:
        if next(calls) > 1:
            second.set()
            with suppress(threading.BrokenBarrierError):
                meets.wait(0.5)
                met.set()

    def predict(model: Named, batch: Batch[int]) -> list[int | Reject]:
        ran.put(len(batch))
        if not whole.is_set():
            whole.set()
            assert second.wait(10)  # the next one is being collated
            raise ValueError("told to")
        return list(batch)

    monkeypatch.setattr(Named, "collate", collate)
    monkeypatch.setattr(Named, "predict", predict)
    run_two_batches(pipeline, intake, engine)
    assert [ran.get(timeout=20) for _ in range(4)] == [4, 2, 2, 4]
    assert pipeline.stop(20)
    assert not met.is_set()


def test_the_batch_behind_one_that_was_over_its_time_out_is_not_taken_for_it(
    pipeline: Pipeline, engine: store.Engine
) -> None:
    [id] = submit(engine)
    [pipeline._running] = pipeline._custody.take([Draft(TARGET, (id.hex,))], begin=True)
    pipeline._overdue()
    assert claims(engine, "overdue") == [False]
    with pipeline._watch(-1.0):  # seconds that predict may take
        pipeline._overdue()
    assert claims(engine, "overdue") == [True]


def test_a_batch_that_takes_long_is_full_though_each_message_brings_one_job(
    intake: Intake, client: redis.Redis
) -> None:
    """Nothing is fetched behind it, so that what waits must be fetched before it begins."""
    intake.ran(TARGET, 9.0)
    taken: Queue[list[Draft]] = Queue()
    taking = threading.Thread(target=lambda: taken.put(intake.take(lambda: True, lambda: True)), daemon=True)
    taking.start()
    first, *rest = [new_uuid().hex for _ in range(5)]
    for id in rest:
        client.lpush(QUEUE.name, queue.encode(QUEUE, queue.Message((id,))))
    queues = SimpleNamespace(consume_from=[])
    consumer = SimpleNamespace(
        hub=SimpleNamespace(call_soon=lambda verb: verb()),
        connection_errors=(),
        task_consumer=SimpleNamespace(queues=[SimpleNamespace(name=QUEUE.name)]),
        app=SimpleNamespace(amqp=SimpleNamespace(queues=queues)),
    )
    message = SimpleNamespace(
        delivery_info={"routing_key": QUEUE.name},
        payload=[[[first], False]],
        headers={"sent": 0.0},
        ack_log_error=lambda *_: None,
    )
    strategy(intake)(cast(Any, None), cast(Any, None), consumer)(message, None, None, None, None)
    [draft] = taken.get(timeout=10)
    assert list(draft.ids) == [first, *rest[:3]]
    assert client.llen(QUEUE.name) == 1


def test_an_input_that_its_store_cannot_read_fails_alone_and_holds_nobody_up(
    pipeline: Pipeline, intake: Intake, engine: store.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.persist.RETRY", 0.0)
    monkeypatch.setattr("workers.patience.PATIENCE", 0.1)
    damaged, other = submit(engine, 2)
    name = key(1, damaged, 0, "input")
    Directory(tmp_path, b"").put(name, b"1", "application/json")
    [blob] = [path for path in (tmp_path / job_prefix(1, damaged)).rglob("*") if path.is_file()]
    blob.unlink()
    blob.mkdir()
    with engine.begin() as connection:
        connection.execute(text("UPDATE requests SET body = NULL, blob = :blob WHERE id = :id"),
                           {"blob": name, "id": damaged})  # fmt: skip
    intake.ran(TARGET, 0.01)
    pipeline.start()
    for id in (damaged, other):
        assert not intake.put(QUEUE, [queue.Message((id.hex,), alone=True)])
    intake.ring()

    def ended(id: UUID) -> store.JobRow | None:
        job = read(engine, id)
        return job if job and job.status.terminal else None

    failed, succeeded = (wait_until(partial(ended, id), "it ended") for id in (damaged, other))
    assert (failed.status, succeeded.status) == (Status.FAILED, Status.SUCCEEDED)
    assert b"input_unavailable" in (failed.error or b"")
    assert pipeline.stop(20)
