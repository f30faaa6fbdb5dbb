"""What an alias means, and whether two outputs agree."""

import io
import json
import random
from collections import Counter

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundish.agree import agree
from tundish.ids import new_uuid, seconds_of, shadow_id
from tundish.media import JSON, NPY
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


@given(st.text(min_size=1), st.integers(0, 99), st.integers(1, 100))
def test_whoever_is_in_a_canary_stays_in_it_while_it_grows(key: str, before: int, more: int) -> None:
    after = min(100, before + more)
    if Routing({"1": 100 - before, "2": before}).draw(key) == "2":
        assert Routing({"1": 100 - after, "2": after}).draw(key) == "2"


def test_the_largest_place_is_below_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tundish.routing._place", lambda key: 1 - 2**-53)
    assert Routing({"1": 1, "2": 1_000_000, "3": 0}).draw("key") == "2"


def test_a_shadows_id_is_of_the_same_moment_and_leads_back() -> None:
    ids = [new_uuid() for _ in range(1000)]
    shadows = [shadow_id(id) for id in ids]
    assert [shadow_id(id) for id in shadows] == ids
    assert [seconds_of(id) for id in shadows] == [seconds_of(id) for id in ids]
    assert all(id.version == 7 and id.variant == ids[0].variant for id in shadows)
    assert len({*ids, *shadows}) == 2000


def of_json(a: object, b: object) -> tuple[str, float | None, float | None]:
    found = agree(JSON, json.dumps(a).encode(), JSON, json.dumps(b).encode())
    return found.verdict, found.max_abs_diff, found.cosine and round(found.cosine, 6)


@pytest.mark.parametrize(
    ("a", "b", "agreed"),
    [
        ({"a": 1, "b": [True, None]}, {"b": [True, None], "a": 1}, ("equal", 0.0, None)),
        ({"v": [3.0, 4.0]}, {"v": [3, 4.0]}, ("equal", 0.0, 1.0)),
        ([3.0, 4.0], [3.0, 4.002], ("close", pytest.approx(0.002), 1.0)),
        ([3.0, 4.0], [4.0, 3.0], ("different", 1.0, 0.96)),
        ([1.0, 0.0], [-1.0, 0.0], ("different", 2.0, -1.0)),
        ([0.0, 0.0], [0.0, 1.0], ("different", 1.0, None)),
        ({"label": "cat", "p": 0.5}, {"label": "cat", "p": 0.5000001}, ("close", pytest.approx(1e-7), None)),
        ({"label": "cat", "p": 0.5}, {"label": "dog", "p": 0.5}, ("different", None, None)),
        ([1, 2], [1, 2, 3], ("different", None, None)),
        ({"a": 1}, {"b": 1}, ("different", None, None)),
        (1, True, ("different", None, None)),
        (1, None, ("different", None, None)),
    ],
)
def test_how_values_agree(a: object, b: object, agreed: tuple[object, ...]) -> None:
    assert of_json(a, b) == agreed


def npy(*values: float, dtype: str = "float32") -> bytes:
    file = io.BytesIO()
    numpy.save(file, numpy.array(values, dtype))
    return file.getvalue()


def test_how_arrays_and_bytes_agree() -> None:
    assert agree(NPY, npy(3, 4), NPY, npy(3, 4, dtype="int64")).verdict == "equal"
    assert agree(NPY, npy(3, 4), NPY, npy(3, 4.001)).verdict == "close"
    assert agree(NPY, npy(3, 4), NPY, npy(3, 4, 5)).verdict == "different"
    assert agree(NPY, npy(3, 4), NPY, b"no array").verdict == "different"
    assert agree("image/png", b"x", "image/png", b"x").verdict == "equal"
    assert agree("image/png", b"x", "image/png", b"y").verdict == "different"
    assert agree(JSON, b"1", "text/plain", b"1").verdict == "different"
    deep = b"[" * 100_000
    assert agree(JSON, deep + b"1", JSON, deep + b"2").verdict == "different"
