"""What was predicted, between the thread that predicts and those that record."""

from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from tests.local import wait_until
from tundish.ids import new_uuid
from workers.batch import ROWS, Target
from workers.claim import Claim
from workers.gather import Gather
from workers.predict import Prediction

PATIENCE = 10.0


@pytest.fixture
def gather() -> Gather:
    return Gather()


def predicted(count: int, more: bool = False) -> Prediction:
    return Prediction(Claim(new_uuid(), Target("echo", "1"), [], more=more), 1.0, [None] * count, Mock())


def test_what_was_claimed_together_is_taken_together(gather: Gather) -> None:
    first, second, next = predicted(1, more=True), predicted(1), predicted(1)
    gather.put(first)
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(gather.take)
        wait_until(gather._predicted.empty, "the first was taken")
        gather.put(second)
        assert taken.result(PATIENCE) == [first, second]
        gather.put(next)
        assert gather.take() == [next]


def test_what_does_not_come_is_not_waited_for(gather: Gather, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.gather.TOGETHER", 0.05)
    gather.put(lone := predicted(1, more=True))
    assert gather.take() == [lone]


def test_one_statement_records_so_many_rows(gather: Gather) -> None:
    for _ in range(3):
        gather.put(predicted(ROWS // 2, more=True))
    assert len(gather.take()) == 2


def test_the_end_is_heard_by_whoever_takes_next(gather: Gather) -> None:
    gather.put(last := predicted(1))
    gather.end()
    assert [gather.take(), gather.take(), gather.take()] == [[last], [], []]
