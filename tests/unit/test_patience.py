"""Patience with a blob that its store does not give."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tundish.blobs import BlobUnavailable, Directory
from tundish.ids import new_uuid
from workers import patience
from workers.patience import PATIENCE, Patience

ONE, OTHER = new_uuid(), new_uuid()
KEY = "1/20261130/job/0/input"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def blobs(tmp_path: Path) -> Directory:
    return Directory(tmp_path, b"secret")


def test_it_ends_for_each_a_while_after_it_began(blobs: Directory, clock: SimpleNamespace) -> None:
    given = Patience()
    assert not given.ends(ONE, blobs, KEY)
    clock.now += PATIENCE - 1
    assert not given.ends(ONE, blobs, KEY)
    assert not given.ends(OTHER, blobs, KEY)
    clock.now += 1
    assert given.ends(ONE, blobs, KEY)
    assert not given.ends(OTHER, blobs, KEY)


def test_what_was_given_meanwhile_begins_anew(blobs: Directory, clock: SimpleNamespace) -> None:
    given = Patience()
    assert not given.ends(ONE, blobs, KEY)
    given.given(ONE)
    clock.now += PATIENCE
    assert not given.ends(ONE, blobs, KEY)


def test_so_does_all_where_the_store_gives_nothing(
    blobs: Directory, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Patience()
    assert not given.ends(ONE, blobs, KEY)
    clock.now += PATIENCE
    with monkeypatch.context() as away:
        away.setattr(Directory, "reading", _refused)
        with pytest.raises(BlobUnavailable):
            given.ends(ONE, blobs, KEY)
    assert not given.ends(ONE, blobs, KEY)


def test_what_it_writes_goes_with_its_day(blobs: Directory, tmp_path: Path) -> None:
    assert not Patience().ends(ONE, blobs, KEY)
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    blobs.delete_prefix("1/20261130/")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def _refused(*_: object) -> None:
    raise BlobUnavailable("access denied")
