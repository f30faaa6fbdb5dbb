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

from api import app
from api.jobs import Jobs
from api.reads import Found, Then
from tundish import store
from tundish.errors import NotFound, Unavailable
from tundish.ids import new_uuid, to_text
from tundish.job import Priority, Status

ID = new_uuid()
PATH = f"/v1/jobs/{to_text('job', ID)}"
AWAY = Unavailable("unavailable", "away")


def row(status: Status) -> store.JobRow:
    return store.JobRow(ID, 1, "m", "1", status, False, 1, Priority.NORMAL, datetime.now(UTC))


def jobs(found: Found) -> Jobs:
    """Those of an API that reads this."""

    def ask(id: UUID, tenant: int, then: Then) -> None:
        assert (id, tenant) == (ID, 1)
        asyncio.get_running_loop().call_soon(then, found)

    async def progress(job: store.JobRow) -> float:
        return 0.5

    reads, streams = SimpleNamespace(ask=ask), SimpleNamespace(progress=progress)
    settings = SimpleNamespace(public_url="")
    parts = SimpleNamespace(reads=reads, streams=streams, settings=settings, in_retention=lambda id: None)
    return Jobs(cast(Any, parts))


def asks(path: str = PATH) -> Scope:
    return {"type": "http", "path": path, "query_string": b"", "path_params": {"id": PATH[9:]}, "state": {}}


async def answer(found: Found, scope: Scope | None = None) -> Response | None:
    """What the caller gets."""
    answered: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
    assert jobs(found).soon(scope or asks(), 1, answered.set_result)
    return await asyncio.wait_for(answered, 10)


@pytest.mark.parametrize("sent", [True, False])
def test_an_answer_counts_where_it_is_sent(sent: bool) -> None:
    """The connection may have begun to close meanwhile: then the request is called, and counts there."""
    counted = list[tuple[str, int]]()
    gate = object.__new__(app._Gate)
    gate._health = cast(Any, SimpleNamespace(count=lambda *of: counted.append(of)))
    gate._parts = cast(Any, SimpleNamespace(settings=SimpleNamespace(api_key="")))
    gate._jobs = jobs(row(Status.SUCCEEDED))

    async def answered() -> None:
        told = asyncio.Event()

        def then(response: Response | None) -> bool:
            told.set()
            return sent

        assert gate.soon({**asks(), "method": "GET", "headers": []}, then)
        async with asyncio.timeout(10):
            await told.wait()

    asyncio.run(answered())
    assert counted == ([("GET", 200)] if sent else [])


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
def test_who_has_more_to_say_is_called(found: Found) -> None:
    assert asyncio.run(answer(found)) is None


@pytest.mark.parametrize(
    "path",
    [f"{PATH}/result", "/v1/jobs", "/v1/jobs/job_x", f"{PATH}/"],
    ids=["its result", "all jobs", "no id", "a slash more"],
)
def test_another_path_is_called_at_once(path: str) -> None:
    assert not jobs(None).soon(asks(path), 1, cast(Any, None))


def then_shown(found: Found) -> bytes:
    """What is answered after all, by an API that can read nothing any more."""

    async def shown() -> Response:
        scope = asks()
        assert await answer(found, scope) is None
        return await jobs(AWAY).get(Request(scope))

    return bytes(asyncio.run(shown()).body)


def test_a_job_that_runs_is_read_once() -> None:
    assert b'"progress":0.5' in then_shown(row(Status.RUNNING))


@pytest.mark.parametrize(("found", "says"), [(None, NotFound), (AWAY, Unavailable)])
def test_a_read_that_finds_nothing_or_fails_is_not_made_again(found: Found, says: type[Exception]) -> None:
    with pytest.raises(says):
        then_shown(found)
