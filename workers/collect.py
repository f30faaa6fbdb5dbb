"""Collect: what became of a batch's lines goes into two files, then one transaction ends it, with its webhook.

Each line of the upload is a line of one of them, in its order: of the outputs where its job succeeded, else of the
errors.
"""

import codecs
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple
from uuid import UUID

import msgspec

from tundish import outbox, store
from tundish.batchfile import Counts, Fault, verdict
from tundish.batchview import JSONL
from tundish.blobs import CHUNK, BlobMissing, BlobUnavailable, batch_prefix
from tundish.ids import new_uuid, to_text
from tundish.job import Code, Status, error_json
from tundish.media import JSON
from workers.chores import Tools
from workers.unreadable import give_up

#: Lines that are read at once.
PAGE = 250
#: Outputs in blobs that are fetched ahead, and how large they may be: a larger one is copied when its turn comes.
AHEAD, AHEAD_BYTES = 16, 1 << 20

_CANCELED = error_json(Fault.CANCELED, "it was canceled, or its batch was")
_DELETED = error_json(Fault.DELETED, "the job was deleted before the batch had ended")
_GONE = error_json(Fault.DELETED, "the output is no longer in the blob store, or cannot be read")

_encode = msgspec.json.Encoder().encode
_NONE = UUID(int=0)


class Stopped(Exception):
    """This process ends before the batch does: another one begins its files anew."""


class _Files(NamedTuple):
    outputs: BinaryIO
    errors: BinaryIO


class _Seen(msgspec.Struct):
    """What the lines of a batch came to."""

    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    expired: int = 0


_Fetched = Future[bytes] | None


def collect(tools: Tools, batch: store.BatchRow) -> None:
    """End a batch whose lines have all ended. Raises BlobUnavailable, StoreError and Stopped: it has not ended then,
    and the same call may be made again."""
    with tempfile.TemporaryFile() as outputs, tempfile.TemporaryFile() as errors:
        files = _Files(outputs, errors)
        seen = _write(tools, batch, files)
        if batch.fault is not None:
            seen.failed += batch.total - batch.at_line
            _write_error(files, None, batch.at_line + 1, batch.fault)
        # A name of its own: whoever lost the batch meanwhile, and goes on, writes over nothing.
        prefix = f"{batch_prefix(batch.tenant, batch.id)}{new_uuid().hex}-"
        keys = _put(tools, f"{prefix}output", outputs), _put(tools, f"{prefix}errors", errors)
    with tools.engine.begin() as connection:
        if now := store.lock_batch(connection, batch.id):
            status = verdict(
                broken=batch.fault is not None,
                canceled=now.cancel_requested and seen.canceled > 0,
                expired=seen.expired > 0,
            )
            counts = Counts(batch.total, 0, 0, seen.succeeded, seen.failed, seen.canceled)
            ended = store.end_batch(connection, batch.id, store.Ending(status, counts, *keys))
            outbox.announce_batch(connection, ended, tools.settings.public_url)


def _write(tools: Tools, batch: store.BatchRow, files: _Files) -> _Seen:
    seen = _Seen()
    with ThreadPoolExecutor(AHEAD) as pool:
        for line, fetched in _ahead(tools, pool, _lines(tools, batch)):
            if line.status is Status.SUCCEEDED and _write_output(tools, batch, files, line, fetched):
                seen.succeeded += 1
            elif line.status is Status.CANCELED or (line.job is None and line.error is None):
                seen.canceled += 1
                _write_error(files, line.custom_id, line.line, _CANCELED)
            else:
                error = _GONE if line.status is Status.SUCCEEDED else line.error or _DELETED
                seen.failed += 1
                seen.expired += msgspec.json.decode(error)["code"] == Code.EXPIRED
                _write_error(files, line.custom_id, line.line, error)
    return seen


def _lines(tools: Tools, batch: store.BatchRow) -> Iterator[store.LineRow]:
    """All lines, in order. Raises Stopped."""
    for after in range(0, batch.at_line, PAGE):
        if tools.stopped.is_set():
            raise Stopped
        with tools.engine.begin() as connection:
            page = store.read_lines(connection, batch.id, after=after, last=after + PAGE)
        yield from page


def _ahead(
    tools: Tools, pool: ThreadPoolExecutor, lines: Iterator[store.LineRow]
) -> Iterator[tuple[store.LineRow, _Fetched]]:
    """The lines, with what is fetched for them while those before are written."""
    waiting: deque[tuple[store.LineRow, _Fetched]] = deque()
    for line in lines:
        small = (
            line.blob is not None and (line.content_type == JSON or _is_text(line)) and (line.size or 0) <= AHEAD_BYTES
        )
        waiting.append((line, pool.submit(tools.blobs.get, line.blob or "") if small else None))
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


def _write_output(tools: Tools, batch: store.BatchRow, files: _Files, line: store.LineRow, fetched: _Fetched) -> bool:
    """As a job shows it: JSON as it is, a text as a string of JSON, null for all else. False, and nothing is written,
    where the output is gone, or is given up. Raises BlobUnavailable."""
    file, at = files.outputs, files.outputs.tell()
    file.write(
        b'{"custom_id":%b,"id":%b,"output":' % (_encode(line.custom_id), _encode(to_text("job", line.job or _NONE)))
    )
    value = file.tell()
    try:
        if line.content_type == JSON:
            file.writelines(map(_on_one_line, _body(tools, line, fetched)))
        elif _is_text(line):
            file.writelines(_quoted(_body(tools, line, fetched)))
        else:
            file.write(b"null")
    except (BlobMissing, BlobUnavailable) as error:
        give_up(tools, batch, error)
        _cut(file, at)
        # What was fetched ahead may have failed a while ago.
        return fetched is not None and _write_output(tools, batch, files, line, None)
    except UnicodeDecodeError:
        _cut(file, value)
        file.write(b"null")
    file.write(b"}\n")
    return True


def _cut(file: BinaryIO, at: int) -> None:
    file.seek(at)
    file.truncate()


def _body(tools: Tools, line: store.LineRow, fetched: _Fetched) -> Iterator[bytes]:
    if line.blob is None:
        yield line.body or b""
    elif fetched is not None:
        yield fetched.result()
    else:
        with tools.blobs.reading(line.blob) as file:
            while piece := file.read(CHUNK):
                yield piece


def _is_text(line: store.LineRow) -> bool:
    return (line.content_type or "").startswith("text/")


def _quoted(text: Iterable[bytes]) -> Iterator[bytes]:
    """A string of JSON. Raises UnicodeDecodeError."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    yield b'"'
    for piece in text:
        yield _encode(decoder.decode(piece))[1:-1]
    yield _encode(decoder.decode(b"", final=True))[1:-1]
    yield b'"'


def _write_error(files: _Files, custom_id: str | None, line: int, error: bytes) -> None:
    files.errors.write(b'{"custom_id":%b,"line":%d,"error":%b}\n' % (_encode(custom_id), line, error))


def _on_one_line(body: bytes) -> bytes:
    """A line end within JSON is white space between two tokens."""
    return body.replace(b"\n", b" ").replace(b"\r", b" ")


def _put(tools: Tools, key: str, file: BinaryIO) -> str | None:
    """The key; None for a file that is empty."""
    if not file.tell():
        return None
    file.seek(0)
    tools.blobs.put_file(key, file, JSONL)
    return key
