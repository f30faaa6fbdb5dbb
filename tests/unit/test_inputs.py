"""Inputs that are read from blobs into memory: they are counted before they are read, and a batch that there is no
room for comes in parts."""

import threading
from typing import Any

import pytest

from tundish.ids import new_uuid
from tundish.job import Code
from tundish.store import ClaimedJob
from workers.batch import Target
from workers.claim import Claim
from workers.inputs import Fetcher


def claim(*sizes: int, **given: Any) -> Claim:
    """Of uploads."""
    fields = dict.fromkeys(ClaimedJob._fields) | {"tenant": 1, "attempt": 1, "deaths": 0, "blob": "upload"}
    jobs = [ClaimedJob(**{**fields, "id": new_uuid(), "size": size, **given}) for size in sizes]
    return Claim(new_uuid(), Target("m", "1"), jobs)


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher([], 1000, 250, patience=0.2)


def sizes(part: Claim | None) -> list[int]:
    assert part
    return [job.size for job in part.jobs]


def test_what_lies_in_rows_needs_no_room(fetcher: Fetcher) -> None:
    whole = claim(100, 100, 100, blob=None, body=b"")
    assert fetcher.ready(whole, None) is whole


def test_what_fits_has_room_until_it_was_predicted_or_is_dropped(fetcher: Fetcher) -> None:
    ready = fetcher.ready(claim(100, 100), None)
    assert ready
    assert ready.hold
    assert fetcher.ready(claim(100), None) is None
    ready.hold.give()
    again = fetcher.ready(claim(100, 100), None)
    assert again
    assert fetcher.ready(claim(100), None) is None
    del again
    assert fetcher.ready(claim(250), None)


def test_a_batch_that_does_not_fit_comes_in_parts_that_do(fetcher: Fetcher) -> None:
    whole = claim(*[100] * 5)
    assert fetcher.ready(whole, None) is None
    parts, found = fetcher.parts(whole, threading.Event()), []
    for part in parts:
        found.append((part.id == whole.id, sizes(part)))
        del part  # as once it was predicted
    assert found == [(False, [100, 100]), (False, [100, 100]), (True, [100])]


def test_one_that_all_of_the_room_would_not_take_fails_alone(fetcher: Fetcher) -> None:
    whole = claim(100, 251, 100)
    assert fetcher.ready(whole, None) is None
    [part] = fetcher.parts(whole, threading.Event())
    assert sizes(part) == [100, 251, 100]
    [(id, failed)] = part.failed.items()
    assert (id, failed.code) == (whole.jobs[1].id, Code.OUT_OF_MEMORY)
    assert "251 bytes" in failed.message
    assert "tundish.File" in failed.message


def test_two_batches_that_each_need_what_the_other_has_both_come(fetcher: Fetcher) -> None:
    """Neither holds room while it waits for more: what has some goes ahead without the rest."""
    came: list[int] = []

    def take(whole: Claim) -> None:
        for part in fetcher.parts(whole, threading.Event()):
            came.extend(sizes(part))
            del part

    threads = [threading.Thread(target=take, args=(claim(150, 150, 150),), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert came == [150] * 12
