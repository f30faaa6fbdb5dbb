"""Whatever a client sends: a 4xx with a code, never a 5xx or a traceback, and the next good request works."""

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.bad_input.steps import typed


@pytest.fixture(autouse=True)
def _and_the_next_good_request_works(client: httpx.Client) -> Iterator[None]:
    yield
    answer = client.post("/v1/jobs", json=typed(), headers={"Prefer": "wait=30"})
    assert (answer.status_code, answer.json()["output"]["text"]) == (200, "a")
