"""Batches step by step against a real Postgres, Valkey and blobs: what a crash leaves, and who comes second."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import text

from tests.integration.delivered import endpoint, rows
from tests.integration.stored import set_clock
from tests.local import Local, wait_until
from tests.models import Echo
from tests.s3 import ENVIRONMENT, Server
from tundish import queue, store
from tundish.batchfile import LINES_MAX, Status
from tundish.blobs import BlobMissing, Blobs, Directory, key, open_blobs
from tundish.catalog import Served, describe
from tundish.ids import new_uuid, to_text
from tundish.job import Code, Priority, error_json
from tundish.job import Status as JobStatus
from tundish.lineup import Lineup
from tundish.settings import Settings
from workers.chores import Tools, batches, expire, retention
from workers.collect import collect
from workers.expand import PAGE, begin, expand

UPLOAD = "1/uploads/x/body"
ECHO = queue.Queue("echo", "1", Priority.LOW)


@pytest.fixture(params=["directory", "S3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Blobs]:
    if request.param == "directory":
        yield Directory(tmp_path, b"")
        return
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path)
    yield open_blobs(Settings(blob_url="s3://bucket/prefix", s3_endpoint_url=server.url))
    server.kill()


@pytest.fixture
def tools(engine: store.Engine, system: Local, blobs: Blobs) -> Iterator[Tools]:
    with engine.begin() as connection:
        store.register(connection, [describe(Served(Echo))])
    with redis.Redis.from_url(system.ps()["valkey"]["url"] + "?db=5") as client:
        client.delete(ECHO.name)
        yield Tools(Settings(), engine, client, blobs)


on_a_directory = pytest.mark.parametrize("blobs", ["directory"], indirect=True)


def jsonl(names: Iterable[str]) -> bytes:
    """Lines whose custom id is their input, too."""
    return b"".join(
        b'{"custom_id": "%b", "input": {"value": "%b"}}\n' % (each, each) for each in map(str.encode, names)
    )


def made(tools: Tools, body: bytes, **more: Any) -> UUID:
    tools.blobs.put(UPLOAD, body, "application/jsonl")
    etag = tools.blobs.stat(UPLOAD).etag
    given: dict[str, Any] = {"expires_in": 60.0, "model": "echo"} | more
    new = store.NewBatch(id=new_uuid(), tenant=1, blob=UPLOAD, etag=etag, size=len(body), **given)
    with tools.engine.begin() as connection:
        store.new_batch(connection, new)
    return new.id


def read(tools: Tools, id: UUID) -> store.BatchRow:
    with tools.engine.begin() as connection:
        batch = store.read_batch(connection, 1, id)
    assert batch
    return batch


def lineup(tools: Tools) -> Lineup:
    known = Lineup()
    with tools.engine.begin() as connection:
        known.update(store.catalog(connection, 60))
    return known


def stored(tools: Tools) -> list[tuple[int, str, bytes]]:
    """Lines and the inputs of their jobs."""
    with tools.engine.begin() as connection:
        rows = connection.execute(
            text("""
                SELECT l.line, l.custom_id, q.body FROM batch_lines l JOIN requests q ON q.id = l.job
                JOIN jobs j ON j.id = l.job WHERE q.batch = l.batch ORDER BY l.line
            """)
        )
        return [tuple(row) for row in rows]


def run(tools: Tools, most: int | None = None, status: JobStatus = JobStatus.SUCCEEDED, **output: Any) -> list[UUID]:
    """Claim and end queued jobs, as a worker would."""
    with tools.engine.begin() as connection:
        ids = list(
            connection.execute(text("SELECT id FROM jobs WHERE status = 0 ORDER BY id LIMIT :n"), {"n": most}).scalars()
        )
        claim = new_uuid()
        jobs = store.claim(connection, {claim: ids}, new_uuid(), lease=60, max_attempts=3)[claim].jobs
        given = {"content_type": "application/json", "body": b'{\n "value": 1}'} | output
        ends = [store.Finished(job.id, job.attempt, status, **given) for job in jobs]
        store.record(connection, ends, [store.Ran(claim, 1.0)])
    return ids


def file_of(tools: Tools, key: str | None) -> list[dict[str, Any]]:
    return [] if key is None else [json.loads(line) for line in tools.blobs.get(key).splitlines()]


def turn(tools: Tools) -> int:
    """One run of the chore, whatever the batch rests for."""
    with tools.engine.begin() as connection:
        connection.execute(text("UPDATE batches SET due_at = now() WHERE due_at IS NOT NULL"))
    return batches.run(tools)


def expanded(tools: Tools, id: UUID) -> store.BatchRow:
    while not ((batch := read(tools, id)).expanded or batch.status.terminal):
        turn(tools)
    return batch


def settle(tools: Tools, id: UUID) -> store.BatchRow:
    for _ in range(20):
        if (batch := read(tools, id)).status.terminal:
            return batch
        turn(tools)
    raise AssertionError(f"{read(tools, id)} does not end")


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
    assert (error["line"], error["error"]["code"]) == (6, "input_unavailable")
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
