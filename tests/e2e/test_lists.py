"""Lists of jobs: in pages, and by time."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx

from tests.local import ended


def pages(client: httpx.Client, **asked: Any) -> Iterator[list[dict[str, Any]]]:
    """The jobs of each page: a look goes through so many rows at most, so that a last one may be empty."""
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/v1/jobs", params={**asked, **({"cursor": cursor} if cursor else {})}).json()
        yield page["data"]
        cursor = page["next_cursor"]


def test_lists_are_newest_first_in_pages(client: httpx.Client) -> None:
    inputs = [{"value": index} for index in range(5)]
    body: dict[str, Any] = {"model": "echo", "inputs": inputs, "metadata": {"list": "pages"}}
    ids = [each["id"] for each in client.post("/v1/jobs:batch", json=body).json()["data"]]
    for id in ids:
        ended(client, id)
    asked: dict[str, Any] = {"metadata.list": "pages", "limit": 2, "model": "echo@1", "status": "succeeded"}
    found = list(pages(client, **asked))
    assert max(map(len, found)) == 2
    assert [job["id"] for page in found for job in page] == ids[::-1]
    early = client.get("/v1/jobs", params={**asked, "created_before": "2020-01-01T00:00:00Z"}).json()
    assert early == {"data": [], "next_cursor": None}
    open_ended = {"created_after": "0001-01-01T00:00:00Z", "created_before": "9999-12-31T23:59:59+00:00"}
    assert client.get("/v1/jobs", params={**asked, **open_ended}).json()["data"]


def test_a_list_has_20_jobs_unless_it_says_otherwise_of_a_time_that_it_may_name(client: httpx.Client) -> None:
    body: dict[str, Any] = {"model": "echo", "metadata": {"list": "times"}}
    made: list[list[dict[str, Any]]] = []
    for count in (61, 40):
        inputs = [{"value": index} for index in range(count)]
        data = client.post("/v1/jobs:batch", json={**body, "inputs": inputs}).json()["data"]
        made.append([ended(client, each["id"]) for each in data])

    def listed(**asked: Any) -> list[list[dict[str, Any]]]:
        return list(pages(client, **{"metadata.list": "times", **asked}))

    first, second = made
    everything = second[::-1] + first[::-1]
    assert listed()[0] == everything[:20]
    by_hundred = listed(limit=100)
    assert by_hundred[0] == everything[:100]
    assert [job for page in by_hundred for job in page] == everything
    assert listed(limit=100, created_before=second[0]["created_at"])[0] == first[::-1]
    assert listed(limit=100, created_after=first[-1]["created_at"])[0] == second[::-1]


def test_a_time_may_lie_within_the_millisecond_of_a_job(client: httpx.Client) -> None:
    run = {"metadata.run": uuid4().hex}
    job = client.post("/v1/models/echo/jobs", json={"value": 1}, params=run).json()
    made = datetime.fromisoformat(job["created_at"])
    for microseconds, before, after in ((-1, 0, 1), (0, 0, 0), (1, 1, 0), (999, 1, 0)):
        at = (made + timedelta(microseconds=microseconds)).isoformat()
        for name, count in (("created_before", before), ("created_after", after)):
            assert len(client.get("/v1/jobs", params={**run, name: at}).json()["data"]) == count, (microseconds, name)
