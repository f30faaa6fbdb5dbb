"""What is made ahead, and what is not."""

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from unittest.mock import Mock

import pytest

from tests.models import Echo
from tundish.outcome import Item
from tundish.runtime import Ceilings
from workers.ahead import Ahead, Made

PATIENCE = 10.0


class Input(str):
    """One that can be referred to."""


class Asked:
    """Asks for plans, behind one that is being made until `go_on`."""

    def __init__(self) -> None:
        self.ahead = Ahead("cpu", lambda timeout: nullcontext())
        self.collated: list[str] = []
        self._ends = threading.Event()
        begun = threading.Event()

        def collate(items: Sequence[str]) -> None:
            begun.set()
            self._ends.wait(PATIENCE)
            self.collated.extend(items)

        model = Mock(Echo, max_cost=None, collate=collate)
        self._loaded = Mock(model=model, ceilings=Ceilings(), making=threading.Lock())
        self.first = self.plan(Input("first"))
        assert begun.wait(PATIENCE)

    def plan(self, input: Input) -> Made:
        return self.ahead.plan(self._loaded, [Item(b"", "")], [input])

    def go_on(self) -> None:
        self._ends.set()


@pytest.fixture
def asked() -> Iterator[Asked]:
    asked = Asked()
    yield asked
    asked.go_on()
    asked.ahead.stop()
    asked.ahead.thread.join(PATIENCE)


def test_what_nobody_waits_for_is_not_made(asked: Asked) -> None:
    dropped, canceled = asked.plan(Input("dropped")), asked.plan(Input("canceled"))
    assert canceled.cancel()
    del dropped
    asked.go_on()
    asked.plan(Input("last")).result(PATIENCE)
    assert asked.collated == ["first", "last"]


def test_inputs_of_batches_that_ran_without_a_thread_that_hangs_are_not_kept(asked: Asked) -> None:
    inputs = [Input(number) for number in range(3)]
    alive = [weakref.ref(each) for each in inputs]
    assert asked.plan(inputs[0]).cancel()
    asked.plan(inputs[1])
    kept = asked.plan(inputs[2])
    inputs.clear()
    assert [each() for each in alive] == [None, None, "2"]
    assert not kept.done()
