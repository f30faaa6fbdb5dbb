"""When a worker is replaced, and how soon the next one starts."""

import subprocess

import pytest

from local.supervise import BACK_OFF, Child, _Running
from workers import exits, growth


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        (growth.Bounds(), None),
        (growth.Bounds(jobs=11, rss=100, device=50), None),
        (growth.Bounds(jobs=10), "TUNDISH_MAX_JOBS"),
        (growth.Bounds(rss=99), "TUNDISH_MAX_RSS"),
        (growth.Bounds(device=49), "TUNDISH_MAX_DEVICE_MEMORY"),
    ],
)
def test_the_bound_that_is_passed_is_named(bounds: growth.Bounds, named: str | None) -> None:
    past = bounds.past(jobs=10, rss=100, device=50)
    assert (past is None) == (named is None)
    assert (named or "") in (past or "")


def test_the_memory_of_this_process_is_told() -> None:
    before, kept = growth.rss(), bytearray(b"x") * 2**26
    assert 2**25 < growth.rss() - before < 2**28
    assert len(kept) == 2**26


def test_a_worker_that_has_grown_is_replaced_at_once_and_one_without_a_device_late() -> None:
    with subprocess.Popen(["true"]) as process:
        running = _Running(Child("worker", ["true"]), process)
    assert [running.wait_after(1), running.wait_after(1)] == [1.0, 2.0]
    assert running.wait_after(exits.GROWN) == 0
    assert running.wait_after(exits.LOST) == BACK_OFF[1]
    assert running.wait_after(1) == 4.0
