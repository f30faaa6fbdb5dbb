"""Of which models no more is drafted while their inputs are waited for."""

from workers.batch import Target
from workers.waits import MOST, STUCK, Waits

A, B = Target("a", "1"), Target("b", "1")


def test_so_many_claims_of_a_model_wait_and_one_more_for_each_that_ends() -> None:
    waits = Waits()
    assert [waits.begin(A) for _ in range(MOST + 1)] == [True] * MOST + [False]
    assert waits.begin(B)
    waits.end(A)
    assert [waits.begin(A) for _ in range(2)] == [True, False]


def test_no_more_is_drafted_of_a_model_until_one_ends_or_all_are_stuck() -> None:
    waits = Waits()
    for _ in range(MOST):
        assert waits.until(A, 7.0) == 7.0
        waits.begin(A)
    assert (waits.until(A, 7.0), waits.until(B, 7.0)) == (7.0 + STUCK, 7.0)
    waits.end(A)
    assert waits.until(A, 8.0) == 8.0


def test_whether_any_waits() -> None:
    waits = Waits()
    assert not waits.some
    waits.begin(A)
    assert waits.some
    waits.end(A)
    assert not waits.some
