"""Expand: the lines of a batch file become jobs, a page a transaction, each page from the offset where the last ended.

A page that was stored before a crash is not read again, for the offset moves with its jobs; one that was not is read
again by whoever takes the batch next. Messages go after the commit: those that a crash keeps back are sent again.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

import redis

from tundish import queue, store
from tundish.batchfile import LINES_MAX, BadLine, Fault, Line, RawLine, count, lines, parse
from tundish.blobs import BlobMissing, BlobUnavailable, key
from tundish.errors import NotFound, Refused, WrongType
from tundish.ids import new_uuid, to_text
from tundish.job import Code, Priority, error_json
from tundish.lineup import Lineup
from workers.chores import Tools
from workers.unreadable import give_up

log = logging.getLogger(__name__)

#: Lines, and bytes of them, of a page.
PAGE, PAGE_BYTES = 500, 4_000_000
#: Inputs that are put into blobs at once.
PUTS = 16
#: A batch stands behind everything that somebody waits for.
PRIORITY = Priority.LOW

_CANCELED = "the batch was canceled before this line was queued"
_EXPIRED = "the batch expired before this line was queued"


class Page(NamedTuple):
    """Lines as they are stored, the jobs that some became, and the offset behind them."""

    lines: Sequence[store.NewLine]
    jobs: Sequence[store.NewJob]
    end: int


def begin(tools: Tools, batch: store.BatchRow) -> None:
    """Count the lines. A file that has too many is read no further. Raises BlobUnavailable."""
    try:
        with tools.blobs.reading(batch.blob, batch.etag) as file:
            total = count(file)
    except (BlobMissing, BlobUnavailable) as error:
        give_up(tools, batch, error)
        _break(tools, batch, _gone())
        return
    if total > LINES_MAX:
        message = f"the file has {total} lines, and a batch at most {LINES_MAX}; make several of it"
        _break(tools, batch, error_json(Fault.TOO_MANY_LINES, message), total)
        return
    with tools.engine.begin() as connection:
        store.begin_batch(connection, batch.id, total)


def expand(tools: Tools, lineup: Lineup, batch: store.BatchRow, seconds: float) -> None:
    """Expand pages for so many seconds, one at least, or until all lines are. Raises BlobUnavailable and StoreError:
    what was stored until then holds."""
    taken = time.monotonic()
    try:
        with tools.blobs.reading(batch.blob, batch.etag, batch.at_byte) as file:
            rest = lines(file, batch.at_line, batch.at_byte, tools.settings.max_body)
            while raw := list(_page(rest)):
                left = batch.left_s - (time.monotonic() - taken)
                page = _placed(tools, _read(tools, lineup, batch, raw, left))
                stored_at = _store(tools, batch, page)
                if stored_at is None:
                    return
                _send(tools, page.jobs, stored_at)
                batch = batch._replace(at_line=page.lines[-1].line, at_byte=page.end)
                if time.monotonic() - taken > seconds:
                    return
    except (BlobMissing, BlobUnavailable) as error:
        give_up(tools, batch, error)
        _break(tools, batch, _gone())


def _page(rest: Iterator[RawLine]) -> Iterator[RawLine]:
    size = 0
    for line in islice(rest, PAGE):
        yield line
        size += len(line.text or b"")
        if size > PAGE_BYTES:
            return


def _read(tools: Tools, lineup: Lineup, batch: store.BatchRow, raw: Sequence[RawLine], left: float) -> Page:
    """What each line becomes: a job, or why none. `left`: seconds until the batch expires."""
    parsed = [_parsed(line, tools.settings.max_body) for line in raw]
    names = [line.custom_id for line, _ in (each for each in parsed if not isinstance(each, BadLine))]
    with tools.engine.begin() as connection:
        taken = store.names_taken(connection, batch.id, names) if names else set()
    stored: list[store.NewLine] = []
    jobs: list[store.NewJob] = []
    for each, (number, _, _) in zip(parsed, raw, strict=True):
        if isinstance(each, BadLine):
            stored.append(store.NewLine(number, each.custom_id, error=error_json(each.fault, str(each))))
            if each.custom_id is not None:
                taken.add(each.custom_id)
            continue
        line, value = each
        if line.custom_id in taken:
            fault = error_json(Fault.DUPLICATE, "an earlier line has this custom_id; each needs its own")
            stored.append(store.NewLine(number, line.custom_id, error=fault))
            continue
        taken.add(line.custom_id)
        made = _job(lineup, batch, line, value, left)
        if isinstance(made, store.NewJob):
            jobs.append(made)
            stored.append(store.NewLine(number, line.custom_id, job=made.id))
        else:
            stored.append(store.NewLine(number, line.custom_id, error=made))
    return Page(stored, jobs, raw[-1].end)


def _parsed(raw: RawLine, most: int) -> tuple[Line, object] | BadLine:
    try:
        return parse(raw, most)
    except BadLine as bad:
        return bad


def _job(lineup: Lineup, batch: store.BatchRow, line: Line, value: object, left: float) -> store.NewJob | bytes | None:
    """The job of a line; an error where it is refused; None where it is canceled. It expires with its batch, and draws
    its version for itself."""
    if batch.cancel_requested:
        return None
    if left <= 0:
        return error_json(Code.EXPIRED, _EXPIRED)
    try:
        known, shadow = lineup.route(batch.model)
        body, content_type = known.carried(value, line.input, "")
    except Refused as refused:
        return error_json(Code.INVALID_INPUT, refused.detail, refused.details)
    except WrongType as wrong:  # its alias was moved since the batch was made
        return error_json(Code.INVALID_INPUT, wrong.detail)
    except NotFound as missing:
        return error_json(Fault.MODEL_GONE, missing.detail)
    job = store.NewJob(
        # Of the database's now: an id of a host whose clock is behind would be too old to be stored.
        id=new_uuid(batch.expires_at - timedelta(seconds=left)),
        tenant=batch.tenant,
        model=known.version.model,
        version=known.version.version,
        priority=PRIORITY,
        expires_in=left,
        content_type=content_type,
        size=len(body),
        body=body,
    )
    return job.shadowed(shadow.version.version) if shadow else job


def _placed(tools: Tools, page: Page) -> Page:
    """The same with the inputs that are too large for a row in blobs, before their row is written."""

    def place(job: store.NewJob) -> store.NewJob:
        if job.body is None or job.size <= tools.settings.inline_max:
            return job
        name = key(job.tenant, job.id, 0, "input")
        tools.blobs.put(name, job.body, job.content_type)
        return job._replace(body=None, blob=name, shadow=place(job.shadow) if job.shadow else None)

    if all(job.size <= tools.settings.inline_max for job in page.jobs):
        return page
    with ThreadPoolExecutor(PUTS) as pool:
        return page._replace(jobs=list(pool.map(place, page.jobs)))


def _store(tools: Tools, batch: store.BatchRow, page: Page) -> datetime | None:
    """The database's time of it; None where it was not stored."""
    lease = tools.settings.lease
    try:
        with tools.engine.begin() as connection:
            stored = store.add_lines(connection, batch, page.lines, page.jobs, end=page.end, lease=lease)
            return store.clock(connection) if stored else None
    except store.TooOld as error:  # the page is made anew at the batch's next turn
        log.warning("a page of lines has to wait: %s", error, extra={"batch": to_text("bat", batch.id)})
        return None


def _send(tools: Tools, jobs: Sequence[store.NewJob], stored_at: datetime) -> None:
    """Tell the workers. What Redis does not take, the sweep sends later."""
    if not jobs:
        return
    try:
        named = [(job.queue, job.id) for job in store.with_shadows(jobs)]
        queue.send(tools.client, named, alone=tools.settings.max_attempts == 1, sent=stored_at.timestamp())
    except redis.RedisError as error:
        log.warning("%d jobs wait for the next sweep, Redis did not take their messages: %s", len(jobs), error)


def _break(tools: Tools, batch: store.BatchRow, fault: bytes, total: int | None = None) -> None:
    log.warning("a batch file is not read to its end: %s", fault.decode(), extra={"batch": to_text("bat", batch.id)})
    with tools.engine.begin() as connection:
        store.break_batch(connection, batch, fault, total)


def _gone() -> bytes:
    message = "the upload was overwritten, is gone, or cannot be read; upload the file again and make a new batch"
    return error_json(Code.INPUT_UNAVAILABLE, message)
