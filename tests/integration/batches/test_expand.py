"""The lines of a batch file become jobs, against a real Postgres, Valkey and blobs: what a crash leaves, and who comes
second."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.integration.batches.steps import (
    ECHO,
    UPLOAD,
    expanded,
    file_of,
    jsonl,
    lineup,
    made,
    on_a_directory,
    read,
    run,
    settle,
    stored,
    turn,
)
from tests.integration.stored import set_clock
from tests.models import Echo
from tundish import store
from tundish.batchfile import Status
from tundish.blobs import key
from tundish.catalog import Served, describe
from tundish.routing import Routing
from workers.chores import Tools
from workers.expand import PAGE, begin, expand


def test_who_goes_on_after_a_crash_expands_no_line_twice_and_none_not_at_all(tools: Tools) -> None:
    names = [f"n{number}" for number in range(2 * PAGE + 50)]
    id = made(tools, jsonl(names))
    begin(tools, read(tools, id))
    before = read(tools, id)
    assert (before.status, before.total) == (Status.RUNNING, len(names))
    expand(tools, lineup(tools), before, 0)  # one page, and then it died
    assert read(tools, id).at_line == PAGE
    expand(tools, lineup(tools), before, 0)  # one that was frozen over the first page's end writes nothing
    assert read(tools, id).at_line == PAGE
    expand(tools, lineup(tools), read(tools, id), 60)
    after = read(tools, id)
    assert (after.at_line, after.at_byte, after.expanded) == (len(names), after.size, True)
    assert stored(tools) == [(number, name, b'{"value": "%b"}' % name.encode()) for number, name in enumerate(names, 1)]
    sent = [json.loads(each) for each in tools.client.lrange(ECHO.name, 0, -1)]
    assert len(sent) == 2 * 8 + 1  # bundles of 64


@on_a_directory
@pytest.mark.parametrize("ahead", [timedelta(minutes=-2), timedelta(days=9)])
def test_a_file_is_expanded_though_the_clock_is_wrong(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    id = made(tools, jsonl("abc"))
    set_clock(monkeypatch, ahead)
    assert expanded(tools, id).total == len(stored(tools)) == 3


@on_a_directory
def test_a_line_that_draws_a_version_which_takes_no_json_is_refused(tools: Tools) -> None:
    """An alias may be moved while a file is expanded."""
    with tools.engine.begin() as connection:
        takes_bytes = replace(describe(Served(Echo)), version="2", input_type="application/octet-stream")
        store.register(connection, [replace(takes_bytes, input_schema=None)])
        store.route(connection, "echo", "default", Routing({"2": 1}))
    expanded(tools, id := made(tools, jsonl("a")))
    assert not stored(tools)
    [error] = file_of(tools, settle(tools, id).errors)
    assert (error["custom_id"], error["error"]["code"]) == ("a", "invalid_input")
    assert "echo takes bytes of any type, not JSON" in error["error"]["message"]


@on_a_directory
def test_a_name_belongs_to_the_first_line_that_has_it_on_whatever_page(tools: Tools) -> None:
    names = ["a", "b", "a", *(f"n{number}" for number in range(PAGE)), "b"]
    id = made(tools, jsonl(names))
    batch = expanded(tools, id)
    assert [name for _, name, _ in stored(tools)].count("a") == 1
    run(tools)
    done = settle(tools, id)
    assert (done.status, done.counts.succeeded, done.counts.failed) == (Status.SUCCEEDED, batch.total - 2, 2)
    errors = [(each["line"], each["custom_id"], each["error"]["code"]) for each in file_of(tools, done.errors)]
    assert errors == [(3, "a", "duplicate_custom_id"), (len(names), "b", "duplicate_custom_id")]


@on_a_directory
@pytest.mark.parametrize("between", [1, PAGE], ids=["on its page", "on the next"])
def test_a_line_that_was_refused_has_its_name_too_on_whatever_page(tools: Tools, between: int) -> None:
    names = [*(f"n{number}" for number in range(between)), "a"]
    expanded(tools, id := made(tools, b'{"custom_id": "a"}\n' + jsonl(names)))
    run(tools)
    errors = [each["error"]["code"] for each in file_of(tools, settle(tools, id).errors)]
    assert errors == ["invalid_line", "duplicate_custom_id"]


@on_a_directory
def test_a_batch_that_is_cancelled_while_it_is_expanded_queues_nothing_more(tools: Tools) -> None:
    id = made(tools, jsonl(f"n{number}" for number in range(PAGE + 3)))
    begin(tools, read(tools, id))
    expand(tools, lineup(tools), read(tools, id), 0)
    stale = read(tools, id)
    run(tools, 5)
    with tools.engine.begin() as connection:
        store.cancel_batch(connection, 1, id)
    expand(tools, lineup(tools), stale, 0)  # it did not know
    assert read(tools, id).at_line == PAGE
    done = settle(tools, id)
    assert (done.status, done.counts.succeeded, done.counts.canceled) == (Status.CANCELED, 5, PAGE - 2)
    assert {each["error"]["code"] for each in file_of(tools, done.errors)} == {"canceled"}
    assert len(stored(tools)) == PAGE


def test_a_file_that_is_overwritten_is_read_no_further(tools: Tools) -> None:
    names = [f"n{number}" for number in range(PAGE + 3)]
    id = made(tools, jsonl(names))
    begin(tools, read(tools, id))
    expand(tools, lineup(tools), read(tools, id), 0)
    run(tools, 2)
    tools.blobs.put(UPLOAD, jsonl(reversed(names)), "application/jsonl")
    done = settle(tools, id)
    assert (done.status, done.counts.succeeded, done.counts.canceled, done.counts.failed) == (
        Status.FAILED,
        2,
        PAGE - 2,
        3,
    )
    last = file_of(tools, done.errors)[-1]
    assert (last["custom_id"], last["line"], last["error"]["code"]) == (None, PAGE + 1, "input_unavailable")


@on_a_directory
def test_who_finds_a_file_overwritten_too_late_breaks_no_batch_that_another_has_read(tools: Tools) -> None:
    id = made(tools, jsonl(["a", "b"]))
    late = [read(tools, id)]
    begin(tools, read(tools, id))
    late.append(read(tools, id))
    expand(tools, lineup(tools), read(tools, id), 60)
    tools.blobs.put(UPLOAD, jsonl(["other"]), "application/jsonl")
    begin(tools, late[0])
    expand(tools, lineup(tools), late[1], 60)
    assert read(tools, id).fault is None


@on_a_directory
def test_each_line_draws_its_version_for_itself(tools: Tools) -> None:
    class Other(Echo):
        version = "2"

    with tools.engine.begin() as connection:
        store.register(connection, [describe(Served(Other))])
        connection.execute(text("""UPDATE aliases SET weights = '{"1": 50, "2": 50}'"""))
    expanded(tools, made(tools, jsonl(f"n{number}" for number in range(200))))
    with tools.engine.begin() as connection:
        drawn = connection.execute(text("SELECT version, count(*) FROM jobs GROUP BY 1 ORDER BY 1")).all()
    assert [version for version, _ in drawn] == ["1", "2"]
    assert sum(count for _, count in drawn) == 200


@on_a_directory
def test_lines_of_an_alias_that_was_taken_away_are_refused(tools: Tools) -> None:
    id = made(tools, jsonl("ab"), model="echo:canary")
    expanded(tools, id)
    done = settle(tools, id)
    assert (done.status, done.counts.failed) == (Status.SUCCEEDED, 2)
    assert {each["error"]["code"] for each in file_of(tools, done.errors)} == {"model_not_found"}


@on_a_directory
def test_large_inputs_are_blobs_before_their_rows_are_written(tools: Tools) -> None:
    large = b'{"value": "%b"}' % (b"x" * 100_000)
    expanded(tools, made(tools, jsonl("ab") + b'{"custom_id": "c", "input": %b}' % large))
    with tools.engine.begin() as connection:
        [(id, blob, size)] = connection.execute(text("SELECT id, blob, size FROM requests WHERE body IS NULL")).all()
    assert (blob, size) == (key(1, id, 0, "input"), len(large))
    assert tools.blobs.get(blob) == large


def cancel(connection: store.Connection, id: UUID) -> None:
    store.cancel_batch(connection, 1, id)


def expire(connection: store.Connection, id: UUID) -> None:
    connection.execute(text("UPDATE batches SET expires_at = now() WHERE id = :id"), {"id": id})


@on_a_directory
@pytest.mark.parametrize("over", [cancel, expire])
@pytest.mark.parametrize("counted", [False, True])
def test_a_file_that_its_store_cannot_read_is_not_waited_for_once_its_batch_is_over(
    tools: Tools,
    tmp_path: Path,
    over: Callable[[store.Connection, UUID], None],
    counted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a batch has not ended, retention drops nothing that is newer."""
    id = made(tools, jsonl("ab"))
    if counted:
        begin(tools, read(tools, id))
    [upload] = [path for path in tmp_path.rglob("*") if path.is_file()]
    upload.unlink()
    upload.mkdir()
    turn(tools)
    assert not read(tools, id).expanded
    with tools.engine.begin() as connection:
        over(connection, id)
    turn(tools)
    assert not read(tools, id).status.terminal, "it may be read a moment later"
    monkeypatch.setattr("workers.patience.PATIENCE", 0.0)
    done = settle(tools, id)
    assert (done.status, done.total) == (Status.FAILED, 2 if counted else 0)
    [error] = file_of(tools, done.errors)
    assert error["error"]["code"] == "input_unavailable"
