"""Transfers of one batch: several at once, and none is left under way."""

import threading

import pytest

from workers.transfers import AT_ONCE, LARGE, each


def small(_: object) -> int:
    return LARGE


def test_as_many_as_may_are_under_way_at_once_and_what_they_give_keeps_its_order() -> None:
    all_there = threading.Barrier(AT_ONCE)

    def transfer(number: int) -> int:
        all_there.wait(10)
        return -number

    assert each(transfer, range(2 * AT_ONCE), small) == [-number for number in range(2 * AT_ONCE)]


def test_one_that_fails_is_told_once_all_have_ended() -> None:
    told = threading.Event()
    too_early: list[bool] = []

    def transfer(number: int) -> None:
        if number == 0:
            raise ValueError("the first")
        too_early.append(told.wait(0.2))

    with pytest.raises(ValueError, match="the first"):
        each(transfer, range(3), small)
    told.set()
    assert too_early == [False, False]


def test_nothing_is_to_be_had_of_nothing() -> None:
    assert each(str, [], small) == []


def test_large_ones_go_one_by_one_and_hold_back_no_small_one() -> None:
    small_ended = threading.Event()
    by: dict[int, threading.Thread] = {}

    def transfer(size: int) -> int:
        by[size] = threading.current_thread()
        assert size == 1 or small_ended.wait(10)
        small_ended.set()
        return size

    sizes = [LARGE + 1, LARGE + 2, 1, LARGE + 3]
    assert each(transfer, sizes, lambda size: size) == sizes
    assert [by[size] for size in sizes if size > LARGE] == [threading.current_thread()] * 3
    assert by[1] != threading.current_thread()
