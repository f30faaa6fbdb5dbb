"""What an alias means."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundish.routing import Routing

weights = st.dictionaries(st.text("123456789.", min_size=1, max_size=3), st.integers(0, 1000), min_size=1).filter(
    lambda given: sum(given.values()) > 0
)


@given(weights, st.text(min_size=1, max_size=20))
def test_a_draw_is_a_version_with_a_weight_and_one_key_draws_one(given: dict[str, int], key: str) -> None:
    routing = Routing(given)
    assert given[routing.draw()] > 0
    assert given[routing.draw(key)] > 0
    assert routing.draw(key) == routing.draw(key)
    scaled = Routing({version: weight * 7 for version, weight in given.items()})
    assert scaled.draw(key) == routing.draw(key)


@pytest.mark.parametrize("sticky", [False, True])
def test_draws_follow_the_weights(sticky: bool) -> None:
    random.seed(7)
    routing = Routing({"1": 70, "2": 0, "3": 30})
    drawn = Counter(routing.draw(f"user {each}" if sticky else None) for each in range(10_000))
    assert set(drawn) == {"1", "3"}
    assert 3000 - 230 < drawn["3"] < 3000 + 230  # five standard deviations


@given(weights, st.text(min_size=1), st.text("123456789.", min_size=1, max_size=3), st.integers(1, 1000))
def test_keys_move_only_to_the_version_whose_weight_is_raised(
    before: dict[str, int], key: str, raised: str, more: int
) -> None:
    after = before | {raised: before.get(raised, 0) + more}
    assert Routing(after).draw(key) in (Routing(before).draw(key), raised)


@given(st.text(min_size=1), st.integers(0, 99), st.integers(1, 100))
def test_whoever_is_in_a_canary_stays_in_it_while_it_grows(key: str, before: int, more: int) -> None:
    after = min(100, before + more)
    if Routing({"1": 100 - before, "2": before}).draw(key) == "2":
        assert Routing({"1": 100 - after, "2": after}).draw(key) == "2"
