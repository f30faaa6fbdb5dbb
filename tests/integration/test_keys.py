"""What an idempotency key holds of a job's end, against a real Postgres: it goes with the job."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from tests.local import wait_until
from tundish import store
from tundish.ids import from_text, new_uuid
from tundish.job import Priority

SCOPE = store.Scope(1, "POST", "/v1/jobs", "one")
HERE = "/v1/jobs/one"
FIRST, ENDED = b"queued", b"ended, with its output"


@pytest.fixture
def id(engine: store.Engine) -> UUID:
    """A job that came under SCOPE, and has ended."""
    job = store.NewJob(new_uuid(), 1, "m", "1", Priority.NORMAL, 60.0, "application/json", 1, b"1")
    with engine.begin() as connection:
        assert store.submit_once(connection, SCOPE, [job], lambda at: store.Answer(b"", 202, HERE, FIRST))
        assert store.cancel(connection, 1, job.id)
    return job.id


def delete(engine: store.Engine, id: UUID) -> bool:
    with engine.begin() as connection:
        return store.delete(connection, 1, id, HERE)


def held(engine: store.Engine) -> tuple[int, bytes]:
    with engine.begin() as connection:
        answer = store.answer_of(connection, SCOPE, retention=3600.0)
    assert answer
    return answer.status, answer.body


def post(client: TestClient) -> Any:
    return client.post(SCOPE.path, json={"model": "m", "input": 1}, headers={"Idempotency-Key": SCOPE.key})


def test_a_repeat_gets_the_end_until_the_job_is_deleted(engine: store.Engine, id: UUID) -> None:
    with engine.begin() as connection:
        store.amend_answer(connection, SCOPE, id, ENDED)
    assert held(engine) == (200, ENDED)
    assert delete(engine, id)
    assert held(engine) == (202, FIRST)


def test_the_end_of_a_job_is_shown_no_longer_than_the_job(engine: store.Engine, id: UUID) -> None:
    with engine.begin() as connection:
        store.amend_answer(connection, SCOPE, id, ENDED)
    for age, shown in ((3590, (200, ENDED)), (3600, (202, FIRST))):
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE idempotency SET created_at = now() - :age * interval '1 second'"), {"age": age}
            )
        assert held(engine) == shown


@pytest.mark.parametrize("kept", ["/v1/jobs/{}", "https://b/v1/jobs/{}"], ids=["now", "in older rows"])
def test_the_end_goes_with_its_job_though_links_were_others_then(
    engine: store.Engine, serve: Callable[..., TestClient], kept: str
) -> None:
    with serve(public_url="https://a") as client:
        first = post(client)
    path = f"/v1/jobs/{first.json()['id']}"
    assert first.headers["location"] == f"https://a{path}"
    id = from_text("job", first.json()["id"])
    assert id
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT location FROM idempotency")) == path
        connection.execute(text("UPDATE idempotency SET location = :kept"), {"kept": kept.format(first.json()["id"])})
        assert store.cancel(connection, 1, id)
        store.amend_answer(connection, SCOPE, id, ENDED)
    with serve(public_url="https://b") as client:
        assert post(client).content == ENDED
        assert client.delete(path).status_code == 204
        repeat = post(client)
    assert (repeat.status_code, repeat.content) == (202, first.content)
    assert repeat.headers["location"] == f"https://b{path}"


def test_the_end_of_a_job_that_was_deleted_is_not_kept(engine: store.Engine, id: UUID) -> None:
    assert delete(engine, id)
    with engine.begin() as connection:
        store.amend_answer(connection, SCOPE, id, ENDED)
    assert held(engine) == (202, FIRST)


def test_who_deletes_a_job_waits_for_who_keeps_its_end(engine: store.Engine, id: UUID) -> None:
    with ThreadPoolExecutor(1) as thread:
        with engine.begin() as connection:
            store.amend_answer(connection, SCOPE, id, ENDED)
            deleted = thread.submit(delete, engine, id)
            with engine.begin() as look:
                wait_until(
                    lambda: deleted.done() or look.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")),
                    "it waits",
                )
        assert deleted.result(10)
    assert held(engine) == (202, FIRST)
