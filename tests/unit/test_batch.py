"""The batcher, with time passed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundish.ids import new_uuid
from workers.batch import AHEAD, ROWS, Batcher, Draft, Limits, Target

A, B, C = (Target(name, "1") for name in "abc")
HIGH, NORMAL, LOW = 0, 1, 2


def batcher() -> Batcher:
    return Batcher({A: Limits(4, 0.5), B: Limits(2, 0.1)})


def ids(count: int) -> list[str]:
    return [new_uuid().hex for _ in range(count)]


def test_a_lone_job_does_not_wait_while_the_device_is_idle() -> None:
    each, [id] = batcher(), ids(1)
    each.add(A, [id], priority=NORMAL, now=0.0)
    assert each.take(0.0, idle=False) is None
    assert each.take(0.0, idle=True) == Draft(A, (id,))
    assert each.take(0.0, idle=True) is None


def test_on_a_busy_device_a_batch_waits_until_it_is_full_or_old() -> None:
    each, four, one = batcher(), ids(4), ids(1)
    each.add(A, four[:3], priority=NORMAL, now=0.0)
    assert (each.take(0.4, idle=False), each.due_at(0.4)) == (None, 0.5)
    each.add(A, [four[3], *one], priority=NORMAL, now=0.4)
    assert each.take(0.4, idle=False) == Draft(A, tuple(four))
    assert (each.take(0.89, idle=False), each.due_at(0.89)) == (None, 0.9)
    assert each.take(0.9, idle=False) == Draft(A, tuple(one))


def test_what_is_old_makes_a_batch_due_whatever_its_priority() -> None:
    each, low, high = batcher(), ids(1), ids(1)
    each.add(A, low, priority=LOW, now=0.0)
    each.add(A, high, priority=HIGH, now=0.4)
    assert each.due_at(0.4) == 0.5
    each.add(B, ids(1), priority=HIGH, now=0.45)
    assert each.due_at(0.45) == 0.5, "the first of any model"
    assert each.take(0.5, idle=False) == Draft(A, (*high, *low))


def test_what_it_lets_go_of_waits_no_more() -> None:
    each, some, lonely = batcher(), ids(3), ids(1)
    each.add(A, some, priority=NORMAL, now=0.0)
    each.add(B, lonely, priority=NORMAL, now=0.0, alone=True)
    assert sorted(each.drain()) == sorted(some + lonely)
    assert (len(each), each.take(9.0, idle=True), each.drain()) == (0, None, [])


def test_the_better_priority_goes_first_and_fills_up_with_the_next() -> None:
    each, low, high = batcher(), ids(4), ids(1)
    each.add(A, low, priority=LOW, now=0.0)
    each.add(A, high, priority=HIGH, now=1.0)
    assert each.take(1.0, idle=True) == Draft(A, (*high, *low[:3]))
    assert each.take(1.0, idle=True) == Draft(A, (low[3],))


def test_of_two_models_the_one_whose_job_is_older_goes_first() -> None:
    each, first, second = batcher(), ids(1), ids(1)
    each.add(B, first, priority=NORMAL, now=0.0)
    each.add(A, second, priority=NORMAL, now=0.1)
    assert [each.take(1.0, idle=True), each.take(1.0, idle=True)] == [Draft(B, tuple(first)), Draft(A, tuple(second))]


def test_a_job_that_must_be_alone_is() -> None:
    each, lonely, others = batcher(), ids(2), ids(2)
    each.add(A, others, priority=NORMAL, now=0.0)
    each.add(A, lonely, priority=NORMAL, now=0.0, alone=True)
    taken = [each.take(9.0, idle=True) for _ in range(3)]
    assert {draft.ids for draft in taken if draft} == {(lonely[0],), (lonely[1],), tuple(others)}


def ran(each: Batcher, target: Target, seconds: float) -> None:
    """So many times that nothing else is remembered."""
    for _ in range(100):
        each.ran(target, seconds)


@pytest.mark.parametrize(
    ("took", "batches"),
    [(None, 1), (10 * AHEAD, 1), (1.1 * AHEAD, 1), (0.9 * AHEAD, 2), (AHEAD / 1.6, 3), (AHEAD / 10, 10 + 2)],
)
def test_room_is_for_what_is_taken_at_once_and_for_more_of_what_is_quick(took: float | None, batches: int) -> None:
    each = batcher()
    if took:
        ran(each, A, took)
    assert each.room(A) == 4 * batches
    each.add(A, ids(1), priority=NORMAL, now=0.0)
    assert each.room(A) == 4 * batches - 1
    each.add(A, ids(50), priority=NORMAL, now=0.0)
    assert each.room(A) == 0


def test_a_low_job_does_not_make_what_must_be_alone_of_its_model_low() -> None:
    each, lonely, low, other = batcher(), ids(1), ids(1), ids(1)
    each.add(A, lonely, priority=NORMAL, now=0.0, alone=True)
    each.add(A, low, priority=LOW, now=1.0)
    each.add(B, other, priority=NORMAL, now=5.0)
    taken = [each.take(6.0, idle=True) for _ in range(3)]
    assert [draft and draft.ids for draft in taken] == [tuple(lonely), tuple(other), tuple(low)]


def test_what_must_be_alone_takes_the_room_of_a_batch() -> None:
    each = batcher()
    ran(each, A, 0.9 * AHEAD)
    each.add(A, ids(1), priority=NORMAL, now=0.0, alone=True)
    assert each.room(A) == 4
    each.add(A, ids(1), priority=NORMAL, now=0.0, alone=True)
    assert each.room(A) == 0


def taken_together(each: Batcher, now: float) -> list[int]:
    """The sizes of the next batch and of those that are taken with it."""
    first = each.take(now, idle=True)
    assert first
    return [len(draft.ids) for draft in (first, *each.take_behind(first, now))]


def test_what_takes_the_device_no_time_is_taken_many_batches_at_once() -> None:
    each = batcher()
    each.add(A, ids(22), priority=NORMAL, now=0.0)
    assert taken_together(each, 0.0) == [4], "nobody knows yet"
    ran(each, A, AHEAD / 3)
    assert taken_together(each, 0.0) == [4, 4, 4]
    assert taken_together(each, 0.0) == [4], "the rest is no full batch"
    each.ran(A, 9 * AHEAD)
    each.ran(A, AHEAD / 3)
    each.add(A, ids(8), priority=NORMAL, now=0.0)
    assert taken_together(each, 0.0) == [4], "the next one may take as long"


def test_one_statement_has_its_bounds() -> None:
    for limit, together in ((ROWS // 2, 2), (2 * ROWS, 1)):
        each = Batcher({A: Limits(limit, 0.5)})
        ran(each, A, 0.0)
        each.add(A, ids(4 * ROWS), priority=NORMAL, now=0.0)
        assert len(taken_together(each, 0.0)) == together


def test_what_goes_before_ends_the_row() -> None:
    each = batcher()
    ran(each, A, 0.0)
    each.add(A, ids(8), priority=NORMAL, now=0.0)
    each.add(A, ids(4), priority=LOW, now=0.0)
    each.add(B, ids(2), priority=NORMAL, now=0.1)
    assert taken_together(each, 0.1) == [4, 4]
    assert taken_together(each, 0.1) == [2]
    each.add(A, ids(8), priority=LOW, now=0.2)
    draft = each.take(0.2, idle=True)
    each.add(A, ids(1), priority=NORMAL, now=0.2, alone=True)
    assert draft
    assert each.take_behind(draft, 0.2) == []
    assert taken_together(each, 0.2) == [1], "it must be alone"
    assert taken_together(each, 0.2) == [4, 4]


def test_what_is_single_is_taken_one_batch_at_a_time_until_then() -> None:
    each = batcher()
    ran(each, A, 0.0)
    each.add(A, ids(16), priority=NORMAL, now=0.0)
    each.single[A] = 5.0
    assert taken_together(each, 4.9) == [4]
    assert taken_together(each, 5.0) == [4, 4, 4]


def test_what_is_old_but_not_full_follows_nothing() -> None:
    each = batcher()
    ran(each, A, 0.0)
    each.add(A, ids(6), priority=NORMAL, now=0.0)
    assert taken_together(each, 9.0) == [4]


def test_nothing_follows_what_must_be_alone_where_all_are() -> None:
    each = Batcher({A: Limits(1, 0.5)})
    ran(each, A, 0.0)
    each.add(A, ids(1), priority=NORMAL, now=0.0, alone=True)
    each.add(A, ids(3), priority=NORMAL, now=0.0)
    assert taken_together(each, 0.0) == [1]
    assert taken_together(each, 0.0) == [1, 1, 1]


def test_what_is_paused_is_never_due_and_waits_for_the_end_of_the_pause() -> None:
    each, paused, other = batcher(), ids(4), ids(1)
    each.add(A, paused[:3], priority=HIGH, now=0.0)
    each.add(A, paused[3:], priority=HIGH, now=0.0, alone=True)
    each.add(B, other, priority=LOW, now=1.0)
    each.paused = frozenset({A})
    assert each.due_at(0.0) == 1.1
    assert each.take(99.0, idle=True) == Draft(B, tuple(other))
    assert (each.take(99.0, idle=True), each.due_at(99.0), len(each)) == (None, None, 4)
    each.paused = frozenset()
    taken = [each.take(99.0, idle=True) for _ in range(2)]
    assert {draft.ids for draft in taken if draft} == {tuple(paused[3:]), tuple(paused[:3])}


def test_what_is_held_back_is_not_due_before_its_moment() -> None:
    each, held, other = batcher(), ids(2), ids(1)
    each.add(A, held[:1], priority=HIGH, now=0.0)
    each.add(A, held[1:], priority=HIGH, now=0.0, alone=True)
    each.add(B, other, priority=LOW, now=1.0)
    each.held_back[A] = 3.0
    assert each.take(1.0, idle=True) == Draft(B, tuple(other))
    assert (each.take(1.0, idle=True), each.due_at(1.0), set(each.waiting(1.0))) == (None, 3.0, set())
    assert set(each.waiting(3.0)) == {A}
    taken = [each.take(3.0, idle=True) for _ in range(2)]
    assert {draft.ids for draft in taken if draft} == {tuple(held[1:]), tuple(held[:1])}


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 2), st.integers(1, 9), st.booleans()), max_size=20))
def test_every_job_leaves_once_and_no_batch_is_too_large(arrivals: list[tuple[Target, int, int, bool]]) -> None:
    each = batcher()
    sent: dict[Target, list[str]] = {A: [], B: []}
    for now, (target, priority, count, alone) in enumerate(arrivals):
        new = ids(count)
        sent[target] += new
        each.add(target, new, priority=priority, now=float(now), alone=alone)
    left: dict[Target, list[str]] = {A: [], B: []}
    while draft := each.take(99.0, idle=True):
        assert 1 <= len(draft.ids) <= (4 if draft.target == A else 2)
        left[draft.target] += draft.ids
    assert {target: sorted(all) for target, all in left.items()} == {
        target: sorted(all) for target, all in sent.items()
    }
    assert len(each) == 0


def test_what_is_served_changes_and_what_stays_goes_on_waiting() -> None:
    each, waiting = batcher(), ids(3)
    each.add(A, waiting, priority=NORMAL, now=0.0)
    each.add(B, ids(1), priority=HIGH, now=0.0)
    each.serve({A: Limits(2, 0.5), C: Limits(2, 0.1)})
    assert (A in each, B in each, C in each) == (True, False, True)
    assert (each.room(A), each.room(B), each.room(C)) == (0, 0, 2)
    assert each.take(0.0, idle=True) == Draft(A, tuple(waiting[:2]))
    assert each.take(0.0, idle=True) == Draft(A, tuple(waiting[2:]))
    assert each.take(0.0, idle=True) is None
