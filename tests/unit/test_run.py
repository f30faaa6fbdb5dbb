"""The stages of a worker between its threads, without a store."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast
from unittest.mock import Mock, call

import pytest

from tests.local import wait_until
from tests.models import Echo
from tests.shelves import NO_ARTIFACTS, alone
from tundish.blobs import BlobUnavailable
from tundish.catalog import Served
from tundish.execute import DeviceLost
from tundish.ids import new_uuid
from tundish.job import Code
from tundish.outcome import Canceled, Failed, Item
from tundish.settings import Settings
from workers.batch import AHEAD, Target
from workers.claim import Claim
from workers.gpu import Cpu
from workers.lead import SLOW
from workers.pace import Pace
from workers.predict import Prediction
from workers.prepare import Prepared
from workers.record import Recorded
from workers.run import Pipeline, Tools
from workers.shelf import Shelf
from workers.upcoming import Ended

PATIENCE = 10.0
ECHO = Target("echo", "1")


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    """Of a worker that serves `echo`; its threads have not started."""
    device = Cpu()
    shelf = Shelf([Served(Echo)], device, NO_ARTIFACTS, alone(), host_budget=lambda: 0.0)
    away = Mock()
    tools = Tools(new_uuid(), Settings(), away, away, away, away, away, away, away, shelf, device, away, Pace(0.0))
    pipeline = Pipeline(tools, Mock(**{"drain.return_value": []}), on_failure=lambda: None)
    yield pipeline
    pipeline._upcoming.end()


def claimed(more: bool = False) -> Claim:
    return Claim(new_uuid(), ECHO, [], more=more)


def prepared() -> Prepared:
    return Prepared(claimed(), Mock(), [], [], None, 0.0)


def predicted(count: int, more: bool = False) -> Prediction:
    return Prediction(claimed(more), 1.0, [None] * count, Mock())


def test_what_is_given_back_makes_room_and_who_claims_looks_again(pipeline: Pipeline) -> None:
    """The long batch may have ended before what was prepared behind it was taken away: nobody else would ring."""
    behind = prepared()
    pipeline._upcoming.put(behind)
    told, custody = list[object](), Mock()
    custody.give_back.side_effect = told.append
    cast(Mock, pipeline._intake).ring.side_effect = lambda: told.append("look again")
    pipeline._custody = custody
    pipeline._give_back()
    assert told == [[behind.claim.id], "look again"]


def test_a_worker_that_stops_waits_for_what_is_made_ahead_and_makes_no_more(pipeline: Pipeline) -> None:
    begun, ends, model = threading.Event(), threading.Event(), Mock(Echo, max_cost=None)

    def collate(items: Sequence[str]) -> None:
        begun.set()
        ends.wait(PATIENCE)

    model.collate.side_effect = collate
    pipeline._threads.clear()
    loaded = pipeline._tools.shelf.stock.models[ECHO]
    loaded.model = model
    made, behind = (pipeline._ahead.plan(loaded, [Item(b"", "")], ["a"]) for _ in range(2))
    assert begun.wait(PATIENCE)
    assert not pipeline.stop(0.0)
    ends.set()
    assert pipeline.stop(PATIENCE)
    assert made.done()
    assert behind.cancel()


def test_what_is_asked_of_a_worker_that_has_ended_waits_for_nobody(pipeline: Pipeline) -> None:
    pipeline._upcoming.end()
    pipeline._predict()
    assert isinstance(pipeline._upcoming.soon(Mock()).exception(PATIENCE), Ended)


@pytest.fixture
def coming(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is prepared is decoded at once, its model collates, and says here that it was asked to."""
    asked = list[str]()

    class Collating(Echo):
        def collate(self, items: Sequence[Any]) -> None: ...

    def plan(*of: object) -> None:
        asked.append("asked")

    monkeypatch.setattr(
        pipeline, "_decoded", lambda claim: replace(prepared(), claim=claim, loaded=Mock(model=Collating()))
    )
    monkeypatch.setattr(pipeline._tools.shelf.stock, "holds", lambda target: True)
    monkeypatch.setattr(pipeline._ahead, "plan", plan)
    monkeypatch.setattr(pipeline, "_custody", Mock(lone=False))
    return asked


def test_of_many_that_were_fetched_at_once_two_are_collated_before_their_turn(
    pipeline: Pipeline, coming: list[str]
) -> None:
    most = 0
    with ThreadPoolExecutor(8) as pool:
        all_prepared = [pool.submit(pipeline._prepare, claimed()) for _ in range(8)]
        for taken in range(8):
            wait_until(lambda: not pipeline._upcoming.empty, "one waits")
            most = max(most, len(coming) - taken)
            assert pipeline._upcoming.take() is not None
        for each in all_prepared:
            each.result(PATIENCE)
    assert most <= 2


@pytest.mark.parametrize(("stage", "what"), [("finish", "storing outputs"), ("record", "recording what has run")])
def test_what_has_run_is_recorded_within_the_grace_where_a_store_is_away_for_a_moment(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stage: str, what: str
) -> None:
    calls, away = list[str](), threading.Event()

    def called(name: str, gives: object) -> object:
        calls.append(name)
        if name == stage and not away.is_set():
            away.set()
            raise BlobUnavailable("it restarts")
        return gives

    monkeypatch.setattr("workers.run.finish", lambda *_, **__: called("finish", []))
    monkeypatch.setattr("workers.run.record", lambda *_, **__: called("record", Recorded([], webhooks=False)))
    monkeypatch.setattr("workers.persist.RETRY", 0.01)
    custody = pipeline._custody = Mock()
    pipeline._closing.set()
    pipeline._predicted.put(last := predicted(1))
    pipeline._predicted.end()
    recording = threading.Thread(target=pipeline._record, daemon=True)
    recording.start()
    assert away.wait(PATIENCE)
    pipeline._threads = [recording]
    assert pipeline.stop(PATIENCE)
    assert calls == (["finish", "finish", "record"] if stage == "finish" else ["finish", "record", "record"])
    assert f"{what} has to wait: it restarts" in caplog.messages
    assert list(custody.let_go.call_args.args[0]) == [last.claim.id]


def test_what_no_store_takes_within_the_grace_is_given_back(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.run.finish", Mock(side_effect=BlobUnavailable("it is away")))
    custody = pipeline._custody = Mock()
    pipeline._predicted.put(predicted(1))
    pipeline._threads = [threading.Thread(target=pipeline._record, daemon=True)]
    pipeline.start()
    assert not pipeline.stop(0.0)
    assert custody.end.called
    pipeline._predicted.end()
    pipeline._threads[0].join(PATIENCE)
    assert not pipeline._threads[0].is_alive()
    assert not custody.let_go.called


@pytest.mark.parametrize("told", ["to the stage", "to the guard", "later"])
def test_a_device_that_is_gone_takes_no_job_along_whoever_is_told(pipeline: Pipeline, told: str) -> None:
    def fault(wait: float) -> str | None:
        if told == "to the guard":
            pipeline.lose()
        return "Xid 79" if told == "to the stage" else None

    def stage() -> None:
        raise DeviceLost("CUDA error: unspecified launch failure")

    cast(Any, pipeline._tools.device).fault = fault
    custody = pipeline._custody = Mock()
    pipeline._guard(stage)
    assert pipeline.broken == (told == "later")
    if told == "later":
        pipeline.lose()
    pipeline._threads.clear()
    pipeline.stop(0.0)
    assert custody.end.called


def test_the_time_of_a_batch_counts_where_something_came_of_it() -> None:
    nothing = [Failed(Code.MODEL_LOAD_FAILED, "it is no number"), Canceled()]
    assert not replace(predicted(0), results=nothing).ran
    assert replace(predicted(0), results=[*nothing, None]).ran


@pytest.mark.parametrize(("took", "told"), [(2 * AHEAD, ["look again", "run"]), (AHEAD / 2, ["run", "look again"])])
def test_behind_a_batch_that_takes_a_while_the_next_one_is_claimed_as_it_begins(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, took: float, told: list[str]
) -> None:
    """Of what takes no time it was claimed before."""
    heard = list[str]()
    cast(Mock, pipeline._intake).ring.side_effect = lambda: heard.append("look again")
    monkeypatch.setattr(pipeline, "_custody", Mock())
    monkeypatch.setattr(pipeline, "_run", lambda prepared: heard.append("run"))
    pipeline._lead.took(ECHO, took)
    pipeline._upcoming.put(prepared())
    pipeline._upcoming.end()
    pipeline._predict_all()
    assert heard[:2] == told


@pytest.mark.parametrize(("last", "told"), [(True, ["run", "wait", "run", "wait"]), (False, ["run", "run"])])
def test_nothing_runs_before_the_end_of_a_last_attempt_is_recorded(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, last: bool, told: list[str]
) -> None:
    heard = list[str]()

    def run(batch: Prepared) -> Prediction:
        if not heard:
            pipeline._upcoming.put(prepared())
            pipeline._upcoming.end()
        heard.append("run")
        return replace(predicted(1), claim=batch.claim)

    monkeypatch.setattr(pipeline, "_custody", Mock(**{"last.return_value": last}))
    monkeypatch.setattr(pipeline._recorded, "wait_for", lambda recorded: heard.append("wait"))
    monkeypatch.setattr(pipeline, "_run", run)
    pipeline._upcoming.put(prepared())
    pipeline._predict_all()
    assert heard == told


@pytest.mark.parametrize("waits", [False, True])
def test_a_claim_starts_as_it_is_made_unless_what_is_fetched_may_come_in_between(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    monkeypatch.setattr(pipeline, "_custody", custody := Mock())
    pipeline._tools.shelf.fill()
    pipeline._upcoming.hungry = True
    monkeypatch.setattr(pipeline, "_supply", Mock(waits=waits))
    pipeline._take([])
    assert custody.take.call_args_list == [call([], begin=not waits)]


@pytest.fixture
def together(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[Claim]:
    """The claims that are taken at once, by the only statement."""
    claims = [claimed(more=True), claimed(more=True), claimed()]
    cast(Mock, pipeline._intake).take.side_effect = [[Mock()], []]
    custody = Mock()
    custody.take.return_value = claims
    monkeypatch.setattr(pipeline, "_custody", custody)
    return claims


@pytest.mark.parametrize("why", ["slow", "closing", "later"])
def test_what_is_in_hand_is_given_back_where_it_would_have_to_wait(
    pipeline: Pipeline, together: list[Claim], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def prepare(claim: Claim) -> bool:
        if why == "slow":
            pipeline._running = claim
            pipeline._lead.took(ECHO, 2 * SLOW)
        elif why == "later":
            later.append(2 * SLOW)
        else:
            pipeline._closing.set()
        return True

    later, monotonic = [0.0], time.monotonic
    monkeypatch.setattr("workers.run.time.monotonic", lambda: monotonic() + later[-1])

    monkeypatch.setattr(pipeline, "_supply", Mock(now=prepare))
    pipeline._claim()
    cast(Mock, pipeline._custody).give_back.assert_called_once_with([claim.id for claim in together[1:]])
    assert pipeline._upcoming.take() is None


def test_what_waits_for_its_inputs_keeps_back_no_other_claim(
    pipeline: Pipeline, together: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline._tools.shelf, "dropped", dropped := Mock())
    monkeypatch.setattr(pipeline, "_supply", supply := Mock(now=lambda claim: claim is not together[0]))
    pipeline._claim()
    supply.later.assert_called_once_with(together[0])
    dropped.assert_called_once_with(ECHO)  # or nothing is drafted until it is there
    assert pipeline._upcoming.take() is None
