"""A batch file step by step: it is made, expanded, run and settled; and what is there then."""

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tundish import queue, store
from tundish.ids import new_uuid
from tundish.job import Priority
from tundish.job import Status as JobStatus
from tundish.lineup import Lineup
from workers.chores import Tools, batches

UPLOAD = "1/uploads/x/body"
ECHO = queue.Queue("echo", "1", Priority.LOW)

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
