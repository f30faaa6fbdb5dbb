"""What is acknowledged is on the disk, and a bench looks whether it is."""

from typing import Any

import pytest

from bench import durable
from tests.integration.stored import claim, submit
from tundish import store
from tundish.store import connect


def test_the_sessions_of_workers_and_of_the_api_lose_nothing(database_url: str) -> None:
    durable.check_ours(database_url)


def test_a_bench_finds_a_session_that_waits_for_no_disk(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = connect._connect

    def careless(*asked: Any) -> dict[str, Any]:
        made = given(*asked)
        return {**made, "options": made["options"] + " -c synchronous_commit=off"}

    monkeypatch.setattr(connect, "_connect", careless)
    with pytest.raises(RuntimeError, match="synchronous_commit is not on"):
        durable.check_ours(database_url)


def test_a_start_waits_for_no_disk_and_what_comes_after_it_does(engine: store.Engine, kept: store.Kept) -> None:
    [id] = submit(engine)
    held, _ = claim(engine, [id])
    assert store.start(kept(), held, lease=30.0)()
    durable.check(kept().exec_driver_sql)
