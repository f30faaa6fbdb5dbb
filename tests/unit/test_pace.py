"""A worker's pace, with time passed in."""

import pytest

from workers.pace import LATELY, Pace


def test_a_worker_that_did_nothing_yet_has_no_pace() -> None:
    pace = Pace(began=0.0)
    assert (pace.per_s(10.0), pace.job_ms, pace.batch_size) == (0.0, None, None)


def test_a_swap_counts_with_the_next_batch() -> None:
    pace = Pace(began=0.0)
    pace.ended(10.0, 10, 100.0)
    pace.brought(700.0)
    pace.brought(100.0)
    assert pace.job_ms == 10.0
    pace.ended(11.0, 10, 100.0)
    assert pace.job_ms == 50.0
    pace.ended(12.0, 10, 100.0)
    assert pace.job_ms == pytest.approx(1100 / 30)


def test_the_pace_is_that_of_the_last_minute() -> None:
    pace = Pace(began=0.0)
    pace.ended(10.0, 30, 600.0)
    assert (pace.per_s(10.0), pace.job_ms, pace.batch_size) == (3.0, 20.0, 30)
    pace.ended(50.0, 10, 1000.0)
    assert (pace.per_s(50.0), pace.job_ms, pace.batch_size) == (40 / 50, 40.0, 10)
    assert pace.per_s(10.0 + LATELY + 1) == 10 / LATELY
    # What a job takes of the device is remembered when nothing has come for long.
    assert (pace.per_s(1000.0), pace.job_ms) == (0.0, 40.0)
