"""How claims come to their inputs: at once, later, or in another worker."""

import threading
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock, call

import pytest

from tundish.ids import new_uuid
from tundish.store import ClaimedJob
from workers.batch import Target
from workers.claim import Claim
from workers.supply import Supply
from workers.waits import MOST

ECHO = Target("echo", "1")


class Alone:
    """What brings all inputs at once, and what it tells of them. What is done beside it is done before it goes on."""

    def __init__(self) -> None:
        def beside(verb: Callable[[Claim], None], claimed: Claim) -> None:
            verb(claimed)

        self.fetcher = Mock(ready=lambda claim, folders: claim, parts=lambda claim, stopped, folders: [claim])
        self.custody, self.intake = Mock(), Mock()
        self.prepared: list[Claim] = []
        self.supply = Supply(
            self.fetcher,
            self.custody,
            self.intake,
            Mock(side_effect=lambda what, verb, *args: verb(*args)),
            threading.Event(),
            folders=lambda claim: None,
            prepare=self.prepared.append,
            beside=beside,
        )

    def wait(self, count: int) -> None:
        """So many claims wait already."""
        for _ in range(count):
            assert self.supply._waits.begin(ECHO)


@pytest.fixture
def alone() -> Alone:
    return Alone()


def claimed(*urls: str | None) -> Claim:
    return Claim(new_uuid(), ECHO, [Mock(spec=ClaimedJob, input_url=url) for url in urls], more=True)


def test_what_was_fetched_is_waited_for_no_more_and_is_no_part_of_what_was_claimed_together(alone: Alone) -> None:
    fetched = claimed("https://a/")
    alone.supply.later(fetched)
    assert alone.prepared == [replace(fetched, more=False)]
    assert not alone.supply.waits
    assert alone.intake.single.call_args.args[0] == ECHO
    assert [told.args[0] for told in alone.intake.hold_back.call_args_list] == [ECHO, ECHO], "as it begins, as it ends"


def test_where_as_many_wait_as_may_what_has_its_inputs_goes_on_and_the_rest_goes_back(alone: Alone) -> None:
    alone.wait(MOST)
    mixed = claimed("https://a/", None, "https://b/", None)
    alone.supply.later(mixed)
    (part,) = alone.prepared
    assert part.jobs == [mixed.jobs[1], mixed.jobs[3]]
    assert alone.custody.mock_calls == [
        call.part(replace(mixed, more=False), part),
        call.give_back([mixed.id], again=False),
    ]


def test_where_none_has_room_either_all_goes_back(alone: Alone) -> None:
    alone.wait(MOST)
    alone.fetcher.ready = lambda claim, folders: None
    alone.supply.later(claimed("https://a/", None))
    assert not alone.prepared
    (given_back,) = alone.custody.give_back.call_args.args
    assert len(given_back) == 2


def test_one_more_waits_once_another_has_its_inputs(alone: Alone) -> None:
    alone.wait(MOST - 1)
    for _ in range(2):
        alone.supply.later(claimed("https://a/"))
    assert len(alone.prepared) == 2
