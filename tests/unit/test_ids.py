import time
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundish.ids import floor_uuid, from_text, new_uuid, seconds_of, shadow_id, time_of, to_text


def test_ids_rise_and_carry_their_time() -> None:
    before = time.time()
    ids = [new_uuid() for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert {(id.version, id.variant) for id in ids} == {(7, "specified in RFC 4122")}
    assert before - 0.002 <= time_of(ids[0]).timestamp() <= time.time()
    assert floor_uuid(time_of(ids[0])) <= ids[0]


def test_ids_rise_over_a_step_back_and_follow_a_clock_that_was_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1e9]
    monkeypatch.setattr("tundish.ids.time", SimpleNamespace(time_ns=lambda: int(now[0] * 1e9)))
    monkeypatch.setattr("tundish.ids._last", (0, 0))
    ids = [new_uuid()]
    for back in (9, 1):
        now[0] -= back
        ids.append(new_uuid())
    assert ids == sorted(ids)
    assert {seconds_of(id) for id in ids} == {1e9}
    now[0] -= 1
    assert seconds_of(new_uuid()) == 1e9 - 11


@given(st.uuids())
def test_text_and_back(id: UUID) -> None:
    assert from_text("job", to_text("job", id)) == id


@given(st.text(max_size=40))
def test_any_text_is_an_id_or_none(text: str) -> None:
    for candidate in (text, f"job_{text}"):
        id = from_text("job", candidate)
        assert id is None or to_text("job", id) == candidate


def test_the_published_vector_of_typeid() -> None:
    # TypeID 0.3, valid.yml: "prefix-alpha... " 01889c89-df6b-7f1c-a388-91396ec314bc
    assert to_text("prefix", UUID("01889c89-df6b-7f1c-a388-91396ec314bc")) == "prefix_01h2e8kqvbfwea724h75qc655w"


def test_a_shadows_id_is_of_the_same_moment_and_leads_back() -> None:
    ids = [new_uuid() for _ in range(1000)]
    shadows = [shadow_id(id) for id in ids]
    assert [shadow_id(id) for id in shadows] == ids
    assert [seconds_of(id) for id in shadows] == [seconds_of(id) for id in ids]
    assert all(id.version == 7 and id.variant == ids[0].variant for id in shadows)
    assert len({*ids, *shadows}) == 2000
