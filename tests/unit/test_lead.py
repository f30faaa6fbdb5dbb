"""How far claims go ahead of the device."""

import math

import pytest

from workers.batch import AHEAD, Target
from workers.lead import SLOW, Lead, wanted

QUICK, LONG, NEW = (Target(name, "1") for name in ("quick", "long", "new"))


@pytest.fixture
def lead() -> Lead:
    lead = Lead()
    lead.took(QUICK, AHEAD / 2)
    lead.took(LONG, 2 * SLOW)
    return lead


def test_the_longest_of_what_runs_and_comes_next_counts(lead: Lead) -> None:
    assert lead.pending(None, 0.0) == 0.0
    assert lead.pending(QUICK, 0.0) == AHEAD / 2
    assert lead.pending(QUICK, 7.0) == 7.0  # longer than its last
    assert lead.pending(NEW, 0.0) == math.inf
    lead.next_up = LONG
    assert lead.pending(QUICK, 0.0) == 2 * SLOW


@pytest.mark.parametrize(
    ("pending", "waits", "ahead"),
    [(AHEAD / 2, True, True), (AHEAD, True, False), (AHEAD, False, True), (SLOW, False, False)],
)
def test_claims_go_ahead_by_what_the_device_takes(pending: float, waits: bool, ahead: bool) -> None:
    assert wanted(pending, idle=False, waits=waits) == ahead
    assert wanted(pending, idle=True, waits=waits)


def test_what_is_quick_is_known_by_its_last_batch(lead: Lead) -> None:
    assert [lead.quick(each) for each in (QUICK, LONG, NEW)] == [True, False, False]
