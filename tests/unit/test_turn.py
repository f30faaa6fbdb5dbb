"""Whose turn it is, with time passed in."""

import math
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.swap import bursts
from bench.swap_models import least_recently_used
from workers.batch import Batcher, Limits, Target, Waiting
from workers.turn import LONE, LONGEST, OTHERS, WORTH, Policy, Standing, Turn, Wish, fewest, turn, wish, with_others

A, B, C, D = (Target(name, "1") for name in "abcd")

#: Two models of one byte on a device of two, and one that is not there; each takes a second to bring.
THERE = Standing(1, 1.0, there=True, since=-1000.0)
SHELF = {A: THERE, B: THERE, C: replace(THERE, there=False)}


def test_where_all_that_waits_is_there_nothing_changes() -> None:
    assert turn(SHELF, {A: Waiting(9, 0.0)}, 2, 500.0) == Turn()


def test_a_model_that_nobody_asks_for_leaves_at_once() -> None:
    shelf = SHELF | {A: replace(THERE, used=99.5), B: replace(THERE, used=98.5)}
    assert turn(shelf, {C: Waiting(0.1, 100.0)}, 2, 100.0) == Turn(C, (B,))
    assert turn(shelf, {C: Waiting(0.1, 100.0), B: Waiting(1, 100.0)}, 2, 100.0).target is None
    assert turn(shelf, {C: Waiting(0.1, 100.0)}, 3, 100.0) == Turn(C, ())


def test_the_one_that_was_used_less_leaves() -> None:
    shelf = SHELF | {A: replace(THERE, heat=0.2), B: replace(THERE, heat=3.0)}
    assert turn(shelf, {C: Waiting(1, 100.0)}, 2, 100.0) == Turn(C, (A,))


def test_the_one_that_is_cheap_to_bring_back_leaves() -> None:
    shelf = SHELF | {A: replace(THERE, reload=3.0, heat=1.0), B: replace(THERE, heat=1.0)}
    assert turn(shelf, {C: Waiting(1, 100.0)}, 2, 100.0) == Turn(C, (B,))


def test_what_is_busy_is_served_until_a_swap_is_worth_it() -> None:
    busy = {A: Waiting(3, 0.0), B: Waiting(1, 0.0)}
    full, lone = busy | {C: Waiting(1, 0.0)}, busy | {C: Waiting(0.01, 0.0)}
    assert turn(SHELF, full, 2, WORTH - 0.1) == Turn(look_at=WORTH)
    assert turn(SHELF, full, 2, WORTH) == Turn(C, (A,))
    assert turn(SHELF, lone, 2, WORTH).target is None
    assert turn(SHELF, lone, 2, WORTH * LONE).target == C


def test_of_two_busy_models_the_one_with_less_to_do_leaves() -> None:
    shelf = {each: replace(one, since=0.0) for each, one in SHELF.items()}
    waiting = {A: Waiting(0.9, 50.0), B: Waiting(0.2, 50.0), C: Waiting(1, 0.0)}
    assert turn(shelf, waiting, 2, 50.0) == Turn(C, (B,))
    assert turn(shelf, waiting | {B: Waiting(0.9, 20.0)}, 2, 50.0) == Turn(C, (A,))


def test_after_a_swap_what_is_there_is_served_a_while() -> None:
    shelf = SHELF | {A: replace(THERE, since=99.0, used=99.0), B: replace(THERE, since=0.0, used=99.0)}
    waiting = {A: Waiting(1, 99.0), B: Waiting(1, 99.0), C: Waiting(1, 0.0)}
    assert turn(shelf, waiting, 2, 100.0) == Turn(look_at=99.0 + WORTH)
    assert turn(shelf, waiting, 2, 99.0 + WORTH) == Turn(C, (B,))


def test_what_was_not_served_since_the_last_swap_comes_before_the_next() -> None:
    shelf = SHELF | {A: replace(THERE, since=90.0, used=99.0), B: replace(THERE, used=89.0)}
    waiting = {A: Waiting(1, 99.0), B: Waiting(1, 80.0), C: Waiting(1, 0.0)}
    assert turn(shelf, waiting, 2, 100.0).target is None
    assert turn(shelf | {B: replace(THERE, used=99.0)}, waiting, 2, 100.0).target == C
    assert turn(shelf, waiting, 2, 90.0 + LONGEST).target == C


def test_a_large_one_is_not_kept_out_by_small_ones() -> None:
    shelf = {A: THERE, B: THERE, C: Standing(2, 1.0), D: Standing(1, 1.0)}
    waiting = {A: Waiting(1, 90.0), C: Waiting(1, 0.0), D: Waiting(1, 99.0)}
    assert turn(shelf, waiting, 2, 100.0) == Turn(C, (B, A))


def test_a_wish_of_others_is_granted_like_a_turn_and_one_that_is_not_pressing_by_the_quiet_alone() -> None:
    shelf = SHELF | {OTHERS: Standing(1, 1.0)}
    busy = {A: Waiting(3, 0.0), B: Waiting(1, 0.0)}
    assert turn(shelf, busy | {OTHERS: Waiting(1, 0.0)}, 2, WORTH - 0.1) == Turn(look_at=WORTH)
    assert turn(shelf, busy | {OTHERS: Waiting(1, 0.0)}, 2, WORTH) == Turn(OTHERS, (A,))
    assert turn(shelf, busy | {OTHERS: Waiting(1, math.inf)}, 2, 1000.0) == Turn()
    assert turn(shelf, {A: Waiting(3, 0.0), OTHERS: Waiting(1, math.inf)}, 2, 9.0) == Turn(OTHERS, (B,))


def test_wished_for_is_what_does_not_fit_even_where_all_leave_and_then_what_is_crowded_out() -> None:
    crowded, large = {C: Waiting(1, 5.0)}, {D: Waiting(1, 7.0)}
    shelf = SHELF | {D: Standing(4, 1.0)}
    assert wish(shelf, {A: Waiting(1, 0.0)}, 2) is None
    assert wish(shelf, crowded, 3) is None
    assert wish(shelf, crowded, 2) == Wish(1, math.inf)
    assert wish(shelf, crowded | large, 2) == Wish(2, 7.0)
    assert wish(shelf | {A: replace(THERE, pinned=True)}, large, 2) == Wish(3, 7.0)


def test_others_are_offered_what_may_leave_and_keep_what_was_left_to_them() -> None:
    waiting = {C: Waiting(1, 5.0)}
    pinned = SHELF | {A: replace(THERE, pinned=True)}
    assert with_others(SHELF, waiting, 2, None, keep=True) == (SHELF, waiting, 2)
    theirs = {OTHERS: Standing(2, 1.0)}, {OTHERS: Waiting(1.0, 7.0)}
    assert with_others(SHELF, waiting, 2, Wish(2, 7.0), keep=False) == (SHELF | theirs[0], waiting | theirs[1], 2)
    assert with_others(pinned, waiting, 2, Wish(2, 7.0), keep=False)[0][OTHERS] == Standing(1, 1.0)
    assert with_others(SHELF, waiting, 4, Wish(2, 7.0), keep=False) == (SHELF, waiting, 4)
    assert with_others(SHELF, waiting, 4, Wish(2, 7.0), keep=True) == (SHELF, waiting, 2)
    assert with_others(SHELF, waiting, 3, Wish(1, 7.0), keep=True) == (SHELF, waiting, 2)


def test_who_has_nothing_to_leave_offers_nothing_though_others_hold_more_than_there_is() -> None:
    shelf = {A: replace(THERE, pinned=True), C: SHELF[C]}
    for budget in (-1.5, -0.5, 0.5, 1.5):
        assert with_others(shelf, {}, budget, Wish(2, 7.0), keep=False) == (shelf, {}, budget)


def test_what_a_model_left_behind_leaves_where_it_is_needed() -> None:
    shelf = {A: Standing(10, 1.0, residue=1), B: Standing(9, 1.0, residue=1), C: Standing(9, 1.0)}
    assert turn(shelf, {C: Waiting(1, 0.0)}, 11, 9.0) == Turn(C, ())
    assert turn(shelf, {B: Waiting(1, 0.0)}, 9, 9.0) == Turn(B, (A,))


def test_as_few_leave_as_are_needed() -> None:
    costs = {A: (1, 0.1, 0.0), B: (2, 0.4, 0.0), C: (4, 4.0, 0.0)}
    assert fewest(0, costs) == ()
    assert fewest(3, costs) == (A, B)
    assert fewest(4, costs) == (C,)
    assert fewest(8, costs) is None


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[Target, Standing], dict[Target, Waiting], int]:
    """Some models, of which those that are there fit, and what waits."""
    budget = draw(st.integers(1, 12))
    shelf: dict[Target, Standing] = {}
    taken = 0
    for number in range(draw(st.integers(1, 6))):
        size = draw(st.integers(1, 6))
        there = taken + size <= budget and draw(st.booleans())
        taken += size if there else 0
        shelf[Target(str(number), "1")] = Standing(
            size,
            reload=draw(st.floats(0.001, 100)),
            there=there,
            pinned=there and draw(st.booleans()),
            since=draw(st.floats(0, 1000)),
            used=draw(st.floats(0, 1000)),
            heat=draw(st.floats(0, 50)),
        )
    waiting = {
        target: Waiting(draw(st.floats(0.01, 3)), draw(st.floats(0, 1000))) for target in shelf if draw(st.booleans())
    }
    return shelf, waiting, budget


@given(situations())
def test_the_budget_holds_and_the_pinned_stay(
    situation: tuple[dict[Target, Standing], dict[Target, Waiting], int],
) -> None:
    shelf, waiting, budget = situation
    target, leaving, look_at = turn(shelf, waiting, budget, 1000.0)
    assert look_at is None or look_at > 1000
    if target is None:
        return
    assert target in waiting
    assert not shelf[target].there
    assert all(shelf[each].there and not shelf[each].pinned for each in leaving)
    after = {each: one for each, one in shelf.items() if (one.there and each not in leaving) or each == target}
    assert sum(one.size for one in after.values()) <= budget
    held = sum(one.size for each, one in after.items()) - budget
    assert all(held + shelf[each].size > 0 for each in leaving), "one left for nothing"


@settings(max_examples=40, deadline=None)
@example([(1, 1.0), (1, 0.5), (1, 0.5)], 1, 4.0)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.floats(0.05, 20)), min_size=2, max_size=5),
    st.integers(0, 2),
    st.floats(1, 9),
)
def test_everyone_has_a_turn(models: list[tuple[int, float]], spare: int, batch: float) -> None:
    """All models always have a full batch waiting: none waits longer than its own patience and, for each model, what
    is served between two swaps, the batch at the end of it, a swap and a batch."""
    budget = max(size for size, _ in models) + spare
    targets = [Target(str(number), "1") for number in range(len(models))]
    shelf = {
        target: Standing(size, reload, since=-1000.0) for target, (size, reload) in zip(targets, models, strict=True)
    }
    served = dict.fromkeys(targets, 0.0)
    bound = LONGEST + sum(LONGEST + reload + 2 * batch for _, reload in models)
    now = 0.0
    while now < 2 * bound:
        waiting = {target: Waiting(1.0, since) for target, since in served.items()}
        next_one, leaving, _ = turn(shelf, waiting, budget, now)
        if next_one:
            now += shelf[next_one].reload
            shelf |= {each: replace(shelf[each], there=False) for each in leaving}
            shelf[next_one] = replace(shelf[next_one], there=True, since=now)
        there = [target for target in targets if shelf[target].there]
        assert sum(shelf[target].size for target in there) <= budget
        target = next_one or min(there, key=lambda each: served[each])
        now += batch
        served[target] = now
        shelf[target] = replace(shelf[target], used=now)
        assert now - min(served.values()) <= bound


def drained(policy: Policy) -> float:
    """Seconds of a device with room for two of three models until the bursts of `./dev bench swap` have run, where a
    swap takes 7 times what a batch does."""
    reload, batch, targets = 0.28, 0.04, {name: Target(name, "1") for name in ("first", "second", "third")}
    batcher = Batcher(dict.fromkeys(targets.values(), Limits(8, 0.0)))
    shelf = {target: Standing(1, reload) for target in targets.values()}
    arrivals = [(0.01 * number, targets[name], size) for number, (name, size) in enumerate(bursts())]
    now = 0.0
    while arrivals or len(batcher):
        while arrivals and arrivals[0][0] <= now:
            at, target, size = arrivals.pop(0)
            batcher.add(target, [str(number) for number in range(size)], priority=1, now=at)
        next_one, leaving, look_at = policy(shelf, batcher.waiting(now), 2, now)
        if next_one:
            now += reload
            shelf |= {each: replace(shelf[each], there=False) for each in leaving}
            shelf[next_one] = replace(shelf[next_one], there=True, since=now)
        there = [next_one] if next_one else [target for target, one in shelf.items() if one.there]
        if draft := batcher.take(now, idle=True, among=there):
            now += batch
            used = shelf[draft.target]
            shelf[draft.target] = replace(used, used=now, heat=used.heat + 1)
        else:
            now = min([at for at, *_ in arrivals[:1]] + ([look_at] if look_at else []))
    return now


def test_bursts_are_through_in_half_the_time_that_least_recently_used_takes() -> None:
    ours, plain = drained(turn), drained(least_recently_used)
    assert plain > 2 * ours, (plain, ours)
