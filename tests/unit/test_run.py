"""The stages of a worker between its threads, without a store."""

import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from tests.models import Echo
from tests.shelves import NO_ARTIFACTS, alone
from tundish.catalog import Served
from tundish.ids import new_uuid
from tundish.settings import Settings
from workers.gpu import Cpu
from workers.pace import Pace
from workers.run import Bench, Pipeline
from workers.shelf import Shelf

PATIENCE = 10.0


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    """Of a worker that serves `echo`; its threads have not started."""
    device = Cpu()
    shelf = Shelf([Served(Echo)], device, NO_ARTIFACTS, alone(), host_budget=lambda: 0.0)
    away = Mock()
    bench = Bench(new_uuid(), Settings(), away, away, away, away, away, away, shelf, device, away, Pace(0.0))
    pipeline = Pipeline(bench, Mock(), on_failure=lambda: None)
    yield pipeline
    pipeline._prepared.put(None)


def test_what_is_to_be_done_between_two_batches_is_not_forgotten_with_what_waits_behind_a_long_one(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long batch has just ended, and its thread waits for another one."""
    waits, comes = threading.Event(), threading.Event()
    get = pipeline._prepared.get

    def late(block: bool = True) -> Any:
        if block:
            waits.set()
            comes.wait(PATIENCE)
        return get(block)

    monkeypatch.setattr(pipeline._prepared, "get", late)
    threading.Thread(target=pipeline._predict, daemon=True).start()
    assert waits.wait(PATIENCE)
    done = pipeline.soon(lambda: None)
    pipeline._give_back()
    comes.set()
    done.result(PATIENCE)
