"""What is prepared, and what others asked, between their threads and the one that predicts."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest

from tundish.execute import DeviceLost
from tundish.ids import new_uuid
from workers.batch import Target
from workers.claim import Claim
from workers.prepare import Prepared
from workers.upcoming import Ended, Upcoming

PATIENCE = 10.0

Taken = Future[Prepared | None]


@pytest.fixture
def wanted() -> Mock:
    return Mock()


@pytest.fixture
def upcoming(wanted: Mock) -> Upcoming:
    return Upcoming(wanted)


def prepared() -> Prepared:
    return Prepared(Claim(new_uuid(), Target("echo", "1"), []), Mock(), [], [], None, 0.0)


@pytest.fixture
def ended(upcoming: Upcoming, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Taken]]:
    """The thread that predicts, as its long batch has just ended: it is about to wait for another one; when called, it
    does."""
    waits, comes, get = threading.Event(), threading.Event(), upcoming._prepared.get

    def late(block: bool = True) -> Any:
        if block:
            waits.set()
            comes.wait(PATIENCE)
        return get(block)

    monkeypatch.setattr(upcoming._prepared, "get", late)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(upcoming.take)
        assert waits.wait(PATIENCE)

        def go_on() -> Taken:
            comes.set()
            return taken

        yield go_on
        go_on()
        upcoming.end()


def test_a_batch_comes_after_what_was_asked_before_it(upcoming: Upcoming) -> None:
    upcoming.put(batch := prepared())
    told = list[object]()
    upcoming.soon(lambda: told.append("first"))
    told.append(upcoming.take())
    assert told == ["first", batch]


@pytest.mark.parametrize("behind", [False, True])
def test_what_is_to_be_done_between_two_batches_is_not_forgotten_with_what_waits_behind_a_long_one(
    upcoming: Upcoming, wanted: Mock, ended: Callable[[], Taken], behind: bool
) -> None:
    if behind:
        upcoming.put(batch := prepared())
    done = upcoming.soon(verb := Mock())
    assert upcoming.withdraw() == ([batch] if behind else [])
    taken = ended()
    done.result(PATIENCE)
    assert verb.call_count == 1
    upcoming.put(next := prepared())
    assert taken.result(PATIENCE) is next
    assert wanted.called  # it had stood where a batch would: who claims looks again


def test_no_batch_is_waited_for_where_the_last_one_was_withdrawn(
    upcoming: Upcoming, ended: Callable[[], Taken]
) -> None:
    upcoming.put(batch := prepared())
    upcoming.end()
    assert upcoming.withdraw() == [batch]
    assert ended().result(PATIENCE) is None


def test_what_a_verb_raises_is_for_who_asked(upcoming: Upcoming) -> None:
    upcoming.put(batch := prepared())
    failed = upcoming.soon(Mock(side_effect=ValueError("asked for nothing")))
    assert upcoming.take() is batch
    with pytest.raises(ValueError, match="asked for nothing"):
        failed.result(PATIENCE)


def test_the_loss_of_the_device_is_for_both(upcoming: Upcoming) -> None:
    upcoming.put(prepared())
    failed = upcoming.soon(Mock(side_effect=DeviceLost))
    with pytest.raises(DeviceLost):
        upcoming.take()
    with pytest.raises(DeviceLost):
        failed.result(PATIENCE)


def test_who_asks_hears_where_nobody_predicts_any_more(upcoming: Upcoming) -> None:
    before = upcoming.soon(verb := Mock())
    upcoming.leave()
    for asked in (before, upcoming.soon(verb)):
        with pytest.raises(Ended):
            asked.result(PATIENCE)
    assert not verb.called
