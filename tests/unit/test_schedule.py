"""When chores are due, in several threads."""

import logging
import signal
import threading
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, cast

import pytest
import redis

from workers.chores import Chore, Tools
from workers.chores.__main__ import MORE, RETRY, Schedule, _once, heed

PATIENCE = 10.0


def chore(name: str, every: float) -> Chore:
    return Chore(name, every, lambda tools: 0)


def test_each_is_due_at_once_and_then_after_its_interval() -> None:
    stopped, rare, often = threading.Event(), chore("rare", 3600.0), chore("often", 0.001)
    schedule = Schedule([rare, often])
    assert [schedule.next(stopped) for _ in range(4)] == [rare, often, often, often]
    schedule.again(often, 3600.0)
    schedule.again(rare, 0.0)
    assert schedule.next(stopped) == rare


def test_one_thread_waits_for_what_is_due_and_the_others_for_it() -> None:
    stopped, one = threading.Event(), chore("one", 3600.0)
    schedule = Schedule([one])
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(schedule.next, stopped) for _ in range(4)]
        done, _ = wait(waiting, PATIENCE, FIRST_COMPLETED)
        assert [each.result() for each in done] == [one]
        stopped.set()
        assert Counter(each.result(PATIENCE) for each in waiting) == {one: 1, None: 3}


def test_a_chore_that_moved_something_is_due_again_soon() -> None:
    moved, tools = [3, 0], cast(Any, None)
    waits = [_once(Chore("paged", 60.0, lambda tools: moved.pop(0)), tools) for _ in range(2)]
    assert waits == [MORE, 60.0]


def test_a_chore_that_has_to_wait_is_told_once_and_when_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    away = [redis.ConnectionError("gone"), redis.ConnectionError("gone")]

    def run(tools: Tools) -> int:
        if away:
            raise away.pop()
        return 0

    tools = cast(Any, None)
    with caplog.at_level(logging.INFO, "workers.chores"):
        waits = [_once(Chore("late", 60.0, run), tools) for _ in range(4)]
    assert waits == [RETRY, RETRY, 60.0, 60.0]
    assert caplog.messages == ["late has to wait: gone", "late goes on, after 0 s"]


def test_a_signal_that_comes_while_the_thread_that_waits_for_it_holds_the_lock_is_heeded() -> None:
    stopped = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        heed(stopped)
        for number in before:
            stopped.clear()
            with stopped._cond:  # type: ignore[attr-defined]  # as `wait` does on its way
                signal.raise_signal(number)
            assert stopped.wait(PATIENCE)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
