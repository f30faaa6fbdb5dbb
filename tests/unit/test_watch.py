"""The timer in C, which ends a process where no thread of Python can."""

import faulthandler
import subprocess
import sys
import time
from queue import Queue
from typing import Any

import pytest

from workers.exits import HUNG
from workers.watch import PATIENCE, TIMER, Watch

HOLDS_THE_GIL = """
import ctypes, threading
from tundish import execute
from tundish.outcome import Item
from workers import ahead, watch
from workers.load import Loaded
from tests.models import Echo

watch.PATIENCE = watch.TIMER = 0.1
loaded = Loaded(None, None, None)
loaded.model = Echo()
loaded.model.collate = lambda items: ctypes.PyDLL(None).sleep(20)
watched = watch.Watch(lambda: None, lambda: None)
made = ahead.Ahead("cpu", watched.beside).plan(loaded, [Item(b"", "", 0.1)], [1])
made.result()
"""


def test_what_holds_the_gil_ahead_of_its_batch_ends_the_process() -> None:
    ran = subprocess.run([sys.executable, "-c", HOLDS_THE_GIL], capture_output=True, text=True, check=False)
    assert ran.returncode
    assert "Timeout" in ran.stderr


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When it was armed for; empty while it is not."""
    fires: list[float] = []

    def arm(seconds: float, **how: Any) -> None:
        fires[:] = [time.monotonic() + seconds]

    monkeypatch.setattr(faulthandler, "dump_traceback_later", arm)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", fires.clear)
    return fires


def test_the_timer_stays_for_what_runs_beside_and_goes_by_a_predict_call(timer: list[float]) -> None:
    watch = Watch(lambda: None, lambda: None)
    now = time.monotonic()
    with watch(100.0):
        with watch.beside(50.0):
            watch._look()
            assert timer[0] >= now + 100 + PATIENCE
        watch._look()
        assert timer[0] >= now + 100 + PATIENCE
    with watch.beside(50.0):
        watch._look()
        assert now + 50 + PATIENCE <= timer[0] <= time.monotonic() + 50 + PATIENCE + TIMER
    watch._look()
    assert not timer


def test_what_runs_beside_for_too_long_ends_no_process_whose_threads_run(timer: list[float]) -> None:
    watch = Watch(lambda: None, lambda: None)
    with watch.beside(0.0):
        watch._look()
        assert timer[0] >= time.monotonic() + PATIENCE - 1


HANGS = """
import threading
from workers import watch

watch.PATIENCE = 0.0
watched = watch.Watch(lambda: None, lambda: None)

def the_authors_predict():
    threading.Event().wait()

with watched.batch("echo@1"), watched(0.0):
    the_authors_predict()
"""


def test_the_last_that_a_hung_process_says_is_whose_predict_hangs_and_where() -> None:
    ran = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, check=False)
    assert ran.returncode == HUNG
    last = ran.stderr.rpartition("echo@1: predict hangs")[2]
    assert "in the_authors_predict" in last
    assert "Thread" not in last, "the others come before"


def test_that_a_call_is_over_its_time_out_is_said_again_and_again_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A statement may fail, and a heart-beat that was on its way takes it back."""
    said: Queue[str] = Queue()
    watch = Watch(lambda: None, lambda: said.put("over"))
    with watch.batch("echo@1"), watch(0.0):
        for _ in range(3):
            said.get(timeout=PATIENCE / 2)  # before the process is ended
    assert caplog.messages == ["echo@1: predict is over its time-out of 0 s"]
