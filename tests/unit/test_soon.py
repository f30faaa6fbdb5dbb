"""Which statuses are answered without a task, and what is called for the rest."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.jobs import Jobs
from tundish import store
from tundish.errors import NotFound, Unavailable
from tundish.ids import new_uuid, to_text
from tundish.job import Priority, Status

ID = new_uuid()
PATH = f"/v1/jobs/{to_text('job', ID)}"
AWAY = RuntimeError("away")


def row(status: Status) -> store.JobRow:
    return store.JobRow(ID, 1, "m", "1", status, False, 1, Priority.NORMAL, datetime.now(UTC))


def jobs(found: store.JobRow | Exception | None) -> Jobs:
    """Those of an API that reads this; a read of AWAY never ends."""

    def ask(id: UUID, tenant: int) -> asyncio.Future[store.JobRow | None]:
        assert (id, tenant) == (ID, 1)
        asked: asyncio.Future[store.JobRow | None] = asyncio.get_running_loop().create_future()
        if not isinstance(found, Exception):
            asked.set_result(found)
        return asked

    async def progress(job: store.JobRow) -> float:
        return 0.5

    reads, streams = SimpleNamespace(ask=ask), SimpleNamespace(progress=progress)
    settings = SimpleNamespace(public_url="")
    parts = SimpleNamespace(reads=reads, streams=streams, settings=settings, in_retention=lambda id: None)
    return Jobs(cast(Any, parts))


def asks(path: str = PATH) -> Scope:
    return {"type": "http", "path": path, "query_string": b"", "path_params": {"id": PATH[9:]}, "state": {}}


async def answer(found: store.JobRow | Exception | None, scope: Scope | None = None) -> Response | None:
    """What the caller gets."""
    answered: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
    assert jobs(found).soon(scope or asks(), 1, answered.set_result)
    return await asyncio.wait_for(answered, 10)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_a_job_that_does_not_run_is_shown(status: Status) -> None:
    response = asyncio.run(answer(row(status)))
    assert response
    assert (response.status_code, response.media_type) == (200, "application/json")
    assert f'"status":"{status.name.lower()}"'.encode() in bytes(response.body)


@pytest.mark.parametrize(
    "found",
    [None, AWAY, row(Status.RUNNING), row(Status.SUCCEEDED)._replace(expires_at=cast(Any, "a fault"))],
    ids=["no such job", "no answer", "it runs", "it cannot be shown"],
)
def test_who_has_more_to_say_is_called(found: store.JobRow | Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.patience.PATIENCE", 0.01)
    assert asyncio.run(answer(found)) is None


@pytest.mark.parametrize(
    "path",
    [f"{PATH}/result", "/v1/jobs", "/v1/jobs/job_x", f"{PATH}/"],
    ids=["its result", "all jobs", "no id", "a slash more"],
)
def test_another_path_is_called_at_once(path: str) -> None:
    assert not jobs(None).soon(asks(path), 1, cast(Any, None))


def then_shown(found: store.JobRow | Exception | None) -> bytes:
    """What is answered after all, by an API that can read nothing any more."""

    async def shown() -> Response:
        scope = asks()
        assert await answer(found, scope) is None
        return await jobs(AWAY).get(Request(scope))

    return bytes(asyncio.run(shown()).body)


def test_a_job_that_runs_is_read_once() -> None:
    assert b'"progress":0.5' in then_shown(row(Status.RUNNING))


@pytest.mark.parametrize(("found", "says"), [(None, NotFound), (AWAY, Unavailable)])
def test_a_read_that_finds_nothing_or_fails_is_not_made_again(
    found: Exception | None, says: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.patience.PATIENCE", 0.01)
    with pytest.raises(says):
        then_shown(found)
