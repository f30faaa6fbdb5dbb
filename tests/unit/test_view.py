"""How a job looks, byte for byte."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from tundish.job import Priority, Status
from tundish.media import JSON
from tundish.store import JobRow
from tundish.view import job_json, rfc3339

AT = datetime(2026, 1, 31, 12, 0, 0, 5_000, UTC)
ID = UUID(int=(int(AT.timestamp() * 1000) << 80) | 0x7ABC_8123_4567_89AB_CDEF)
OTHER = UUID(int=ID.int + 1)

QUEUED = JobRow(ID, 1, "words", "2", Status.QUEUED, False, 0, Priority.NORMAL, AT + timedelta(days=1))
RUNNING = QUEUED._replace(
    status=Status.RUNNING,
    cancel_requested=True,
    attempt=1,
    priority=Priority.HIGH,
    started_at=AT + timedelta(microseconds=1_234_567),
    metadata=b'{"a":"b"}',
    worker=OTHER,
)
SUCCEEDED = RUNNING._replace(
    status=Status.SUCCEEDED,
    finished_at=AT + timedelta(seconds=61, microseconds=999_999),
    output_type=JSON,
    output_size=7,
    output=b'{"n":3}',
    predict_ms=12.34567,
    batch_size=8,
    retry_of=OTHER,
    batch=OTHER,
    shadow_of=OTHER,
)
# Its worker's host and its database had clocks that the API's was ahead of.
FAILED = RUNNING._replace(
    status=Status.FAILED,
    started_at=AT - timedelta(milliseconds=3),
    finished_at=AT - timedelta(milliseconds=1),
    error=b'{"code":"model_error"}',
)

_ID = "job_01kg9ys7g5fay828t5cy4tqkff"
_OTHER = "01kg9ys7g5fay828t5cy4tqkfg"
_URL = f"https://x.test/v1/jobs/{_ID}"
_URLS = f'"urls":{{"self":"{_URL}","cancel":"{_URL}/cancel","result":"{_URL}/result","events":"{_URL}/events"}}}}'


@pytest.mark.parametrize(
    ("job", "progress", "shown"),
    [
        (
            QUEUED,
            None,
            f'{{"id":"{_ID}","model":"words","version":"2","status":"queued","cancel_requested":false,"output":null,'
            '"output_type":null,"output_size":null,"error":null,"progress":null,"attempt":0,"priority":"normal",'
            '"metadata":{},"created_at":"2026-01-31T12:00:00.005Z","started_at":null,"finished_at":null,'
            '"expires_at":"2026-02-01T12:00:00.005Z","retry_of":null,"batch":null,"shadow_of":null,'
            '"timings":{"queued_ms":0.0,"predict_ms":0.0,"total_ms":0.0,"batch_size":0},"worker":null,',
        ),
        (
            RUNNING,
            0.5,
            f'{{"id":"{_ID}","model":"words","version":"2","status":"running","cancel_requested":true,"output":null,'
            '"output_type":null,"output_size":null,"error":null,"progress":0.5,"attempt":1,"priority":"high",'
            '"metadata":{"a":"b"},"created_at":"2026-01-31T12:00:00.005Z","started_at":"2026-01-31T12:00:01.239Z",'
            '"finished_at":null,"expires_at":"2026-02-01T12:00:00.005Z","retry_of":null,"batch":null,"shadow_of":null,'
            '"timings":{"queued_ms":1234.567,"predict_ms":0.0,"total_ms":0.0,"batch_size":0},'
            f'"worker":"wrk_{_OTHER}",',
        ),
        (
            SUCCEEDED,
            None,
            f'{{"id":"{_ID}","model":"words","version":"2","status":"succeeded","cancel_requested":true,'
            '"output":{"n":3},"output_type":"application/json","output_size":7,"error":null,"progress":null,'
            '"attempt":1,"priority":"high","metadata":{"a":"b"},"created_at":"2026-01-31T12:00:00.005Z",'
            '"started_at":"2026-01-31T12:00:01.239Z","finished_at":"2026-01-31T12:01:02.004Z",'
            f'"expires_at":"2026-02-01T12:00:00.005Z","retry_of":"job_{_OTHER}","batch":"bat_{_OTHER}",'
            f'"shadow_of":"job_{_OTHER}","timings":{{"queued_ms":1234.567,"predict_ms":12.346,"total_ms":61999.999,'
            f'"batch_size":8}},"worker":"wrk_{_OTHER}",',
        ),
        (
            FAILED,
            None,
            f'{{"id":"{_ID}","model":"words","version":"2","status":"failed","cancel_requested":true,"output":null,'
            '"output_type":null,"output_size":null,"error":{"code":"model_error"},"progress":null,"attempt":1,'
            '"priority":"high","metadata":{"a":"b"},"created_at":"2026-01-31T12:00:00.005Z",'
            '"started_at":"2026-01-31T12:00:00.002Z","finished_at":"2026-01-31T12:00:00.004Z",'
            '"expires_at":"2026-02-01T12:00:00.005Z","retry_of":null,"batch":null,"shadow_of":null,'
            '"timings":{"queued_ms":0.0,"predict_ms":0.0,"total_ms":0.0,"batch_size":0},'
            f'"worker":"wrk_{_OTHER}",',
        ),
    ],
    ids=["queued", "running", "succeeded", "failed"],
)
def test_a_job_reads_so(job: JobRow, progress: float | None, shown: str) -> None:
    assert job_json(job, "https://x.test", progress).decode() == shown + _URLS


def test_a_time_of_any_zone_is_shown_in_utc_and_cut_to_the_millisecond() -> None:
    at = datetime(2026, 1, 31, 12, 0, 0, 999, timezone(timedelta(hours=2)))
    assert rfc3339(at) == "2026-01-31T10:00:00.000Z"
    assert rfc3339(at + timedelta(microseconds=1)) == "2026-01-31T10:00:00.001Z"
