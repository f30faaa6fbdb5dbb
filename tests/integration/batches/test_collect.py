"""A batch ends, against a real Postgres, Valkey and blobs: its files, its webhook, what is kept, who waits for whom."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.integration.batches.steps import (
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
from tests.integration.delivered import endpoint, rows
from tests.local import wait_until
from tundish import store
from tundish.batchfile import LINES_MAX, Status
from tundish.blobs import BlobMissing, BlobUnavailable, Directory
from tundish.ids import new_uuid, to_text
from tundish.job import Code, error_json
from tundish.job import Status as JobStatus
from tundish.settings import Settings
from workers.chores import Tools, batches, expire, retention
from workers.collect import collect
from workers.expand import PAGE, begin, expand


def test_outputs_lie_in_one_file_a_line_each_and_what_is_no_json_is_null(tools: Tools) -> None:
    id = made(tools, jsonl("abcdef"), webhook="http://localhost/hook")
    expanded(tools, id)
    [a, b] = run(tools, 2)
    run(tools, 1, content_type="application/octet-stream", body=b"\xff")
    for size in (1000, 3_000_000):  # fetched ahead, and copied when its turn comes
        body = json.dumps({"value": "x" * size}, indent=1).encode()
        tools.blobs.put(f"1/20260101/{size}", body, "application/json")
        run(tools, 1, body=None, blob=f"1/20260101/{size}", size=len(body))
    run(tools, 1, body=None, blob="1/20260101/gone", size=5)
    done = settle(tools, id)
    assert (done.counts.succeeded, done.counts.failed) == (5, 1)
    outputs = file_of(tools, done.output)
    assert [(each["custom_id"], each["id"]) for each in outputs[:2]] == [
        ("a", to_text("job", a)),
        ("b", to_text("job", b)),
    ]
    assert [len(json.dumps(each["output"])) for each in outputs] == [12, 12, 4, 1013, 3_000_013]
    [error] = file_of(tools, done.errors)
    assert (error["line"], error["error"]["code"]) == (6, "deleted")
    with tools.engine.begin() as connection:
        [body] = connection.execute(text("SELECT body FROM deliveries")).scalars()
    assert json.loads(body)["data"]["counts"]["succeeded"] == 5


@on_a_directory
def test_a_batch_ends_whatever_text_a_line_s_error_has(tools: Tools) -> None:
    expanded(tools, id := made(tools, jsonl("a")))
    run(tools, status=JobStatus.FAILED, content_type=None, body=None, error=error_json(Code.MODEL_ERROR, "\ud800"))
    done = settle(tools, id)
    assert (done.status, done.counts.failed) == (Status.SUCCEEDED, 1)
    assert [each["error"]["message"] for each in file_of(tools, done.errors)] == ["\\ud800"]


@on_a_directory
def test_the_last_lines_of_the_longest_file_can_be_read(tools: Tools) -> None:
    """Beyond what a smallint holds."""
    with tools.engine.begin() as connection:
        assert store.read_lines(connection, new_uuid(), after=LINES_MAX - 1, last=LINES_MAX) == []


@on_a_directory
def test_a_batch_ends_once_and_its_webhook_with_it(tools: Tools) -> None:
    id = made(tools, jsonl("a"), webhook="http://localhost/hook")
    batch = expanded(tools, id)
    run(tools)
    collect(tools, read(tools, id))
    first = read(tools, id)
    collect(tools, batch)  # one that was frozen before it ended the batch
    assert read(tools, id).finished_at == first.finished_at
    with tools.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM deliveries")).scalar() == 1


@on_a_directory
def test_at_its_end_a_batch_that_expires_keeps_what_is_done(tools: Tools) -> None:
    names = [f"n{number}" for number in range(PAGE + 3)]
    id = made(tools, jsonl(names))
    begin(tools, read(tools, id))
    expand(tools, lineup(tools), read(tools, id), 0)
    run(tools, 2)
    with tools.engine.begin() as connection:
        store.survey(connection, new_uuid())
        connection.execute(text("UPDATE jobs SET expires_at = now()"))
        connection.execute(text("UPDATE marks SET expires_at = now()"))
        connection.execute(text("UPDATE batches SET expires_at = now()"))
    expire.run(tools)
    done = settle(tools, id)
    assert (done.status, done.counts.succeeded, done.counts.failed) == (Status.EXPIRED, 2, PAGE + 1)
    errors = file_of(tools, done.errors)
    assert {each["error"]["code"] for each in errors} == {"expired"}
    assert [each["custom_id"] for each in errors] == names[2:]
    assert len(stored(tools)) == PAGE, "what expired before it was queued became no job"


@on_a_directory
@pytest.mark.parametrize("asked", [False, True], ids=["a line's alone", "the batch's too"])
def test_a_batch_is_canceled_where_that_was_asked_for_and_not_where_a_line_was(tools: Tools, asked: bool) -> None:
    id = made(tools, jsonl("abc"), webhook="http://localhost/hook")
    expanded(tools, id)
    [first] = run(tools, 1)
    with tools.engine.begin() as connection:
        [second, _] = connection.execute(text("SELECT id FROM jobs WHERE id <> :first ORDER BY id"), {"first": first})
        assert store.cancel(connection, 1, second.id)
    run(tools)
    stale = read(tools, id)
    if asked:
        with tools.engine.begin() as connection:
            store.cancel_batch(connection, 1, id)
    collect(tools, stale)
    done = read(tools, id)
    assert done.status is (Status.CANCELED if asked else Status.SUCCEEDED)
    assert (done.counts.succeeded, done.counts.failed, done.counts.canceled) == (2, 0, 1)
    [error] = file_of(tools, done.errors)
    assert (error["custom_id"], error["line"], error["error"]["code"]) == ("b", 2, "canceled")
    with tools.engine.begin() as connection:
        assert list(connection.execute(text("SELECT event FROM deliveries")).scalars()) == [f"batch.{done.status}"]


@on_a_directory
@pytest.mark.parametrize("status", [Status.EXPIRED, Status.FAILED])
def test_a_batch_that_expires_or_fails_tells_so(tools: Tools, status: Status) -> None:
    endpoint(tools.engine, [f"batch.{status}"])
    id = made(tools, jsonl("a"), webhook="http://localhost/hook")
    if status is Status.FAILED:
        tools.blobs.put(UPLOAD, jsonl("b"), "application/jsonl")
    else:
        with tools.engine.begin() as connection:
            connection.execute(text("UPDATE batches SET expires_at = now()"))
    assert settle(tools, id).status is status
    told = rows(tools.engine, "event, convert_from(body, 'UTF8')::json->'data'->>'status'")
    assert told == [(f"batch.{status}", status)] * 2  # the batch's own and the endpoint's


@on_a_directory
def test_a_job_that_is_deleted_before_its_batch_has_ended_is_told(tools: Tools) -> None:
    id = made(tools, jsonl("ab"))
    expanded(tools, id)
    [first, _] = run(tools)
    with tools.engine.begin() as connection:
        assert store.delete(connection, 1, first, "")
    done = settle(tools, id)
    assert (done.status, done.counts.succeeded, done.counts.failed) == (Status.SUCCEEDED, 1, 1)
    assert [each["error"]["code"] for each in file_of(tools, done.errors)] == ["deleted"]


@on_a_directory
def test_what_an_open_batch_will_read_is_kept_and_one_that_ended_goes_with_its_files(tools: Tools) -> None:
    id = made(tools, jsonl("ab"))
    expanded(tools, id)
    run(tools)
    short = Tools(Settings(retention=0.001), tools.engine, tools.client, tools.blobs)
    assert retention.run(short) == 0
    done = settle(tools, id)
    assert (done.status, done.counts.succeeded) == (Status.SUCCEEDED, 2)
    assert tools.blobs.get(str(done.output))
    assert retention.run(short) == 2
    with tools.engine.begin() as connection:
        for table in ("batches", "batch_lines"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0
    with pytest.raises(BlobMissing):
        tools.blobs.get(str(done.output))


@on_a_directory
def test_a_batch_is_held_however_long_its_files_take(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Tools(Settings(lease=0.3), tools.engine, tools.client, tools.blobs)
    id = made(tools, jsonl("ab"))
    expanded(quick, id)
    run(tools)
    moments: set[datetime] = set()

    def due_again() -> bool:
        with tools.engine.begin() as connection:
            moments.add(connection.execute(text("SELECT due_at FROM batches WHERE id = :id"), {"id": id}).scalar_one())
        return len(moments) >= 5  # renewed each third of a lease

    def slow(tools: Tools, batch: store.BatchRow) -> None:
        wait_until(due_again, "its lease was renewed")
        with tools.engine.begin() as connection:
            assert store.take_batch(connection, lease=60) is None
        collect(tools, batch)

    monkeypatch.setattr(batches, "collect", slow)
    assert turn(quick) == 2
    assert read(tools, id).status is Status.SUCCEEDED


@on_a_directory
def test_who_is_told_to_stop_leaves_the_files_to_the_next(tools: Tools) -> None:
    id = made(tools, jsonl("ab"))
    expanded(tools, id)
    run(tools)
    tools.stopped.set()
    assert turn(tools) == 0
    assert read(tools, id).status is Status.RUNNING
    tools.stopped.clear()
    assert batches.run(tools) == 2  # at once
    assert read(tools, id).status is Status.SUCCEEDED


@on_a_directory
def test_a_batch_that_breaks_keeps_no_other_waiting(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = made(tools, jsonl("a"))
    expanded(tools, broken)
    run(tools)
    other = made(tools, jsonl("b"))
    with monkeypatch.context() as full:
        full.setattr("tempfile.tempdir", str(tmp_path / "no such folder"))
        expanded(tools, other)
        turn(tools)
    assert read(tools, broken).status is Status.RUNNING
    run(tools)
    assert [settle(tools, each).status for each in (broken, other)] == [Status.SUCCEEDED] * 2


@on_a_directory
@pytest.mark.parametrize("size", [5, 3_000_000], ids=["fetched ahead", "copied"])
def test_an_output_that_its_store_cannot_read_is_not_waited_for_once_its_batch_is_over(
    tools: Tools, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a batch has not ended, retention drops nothing that is newer."""
    expanded(tools, id := made(tools, jsonl("ab")))
    tools.blobs.put("1/20260101/damaged", b"1", "application/json")
    [blob] = (tmp_path / "1" / "20260101").iterdir()
    blob.unlink()
    blob.mkdir()
    run(tools, 1)
    run(tools, 1, body=None, blob="1/20260101/damaged", size=size)
    turn(tools)
    turn(tools)
    assert not read(tools, id).status.terminal
    with tools.engine.begin() as connection:
        connection.execute(text("UPDATE batches SET expires_at = now()"))
    turn(tools)
    assert not read(tools, id).status.terminal, "it may be read a moment later"
    monkeypatch.setattr("workers.patience.PATIENCE", 0.0)
    done = settle(tools, id)
    assert (done.status, done.counts.succeeded, done.counts.failed) == (Status.SUCCEEDED, 1, 1)
    [error] = file_of(tools, done.errors)
    assert (error["line"], error["error"]["code"]) == (2, "deleted")


@on_a_directory
def test_an_output_that_could_not_be_read_ahead_is_asked_for_once_more(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ailed its store may be over by the time it is written."""
    expanded(tools, id := made(tools, jsonl("a")))
    tools.blobs.put("1/20260101/output", b"1", "application/json")
    run(tools, 1, body=None, blob="1/20260101/output", size=1)
    with tools.engine.begin() as connection:
        connection.execute(text("UPDATE batches SET expires_at = now()"))
    monkeypatch.setattr("workers.patience.PATIENCE", 0.0)
    get, away = Directory.get, [BlobUnavailable("it blinked")]

    def blinks(blobs: Directory, key: str, etag: str | None = None) -> bytes:
        if away and key.endswith("output"):
            raise away.pop()
        return get(blobs, key, etag)

    monkeypatch.setattr(Directory, "get", blinks)
    done = settle(tools, id)
    assert not away
    assert (done.status, done.counts.succeeded, done.counts.failed) == (Status.SUCCEEDED, 1, 0)
