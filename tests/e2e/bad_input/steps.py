"""A good job, of which each test spoils something, and the problem that it must be told with."""

from typing import Any

import httpx

GOOD = {"text": "a", "count": 1, "share": 0.5, "tags": [], "inner": {"flag": True}}


def typed(**fields: Any) -> dict[str, Any]:
    return {"model": "typed", "input": GOOD | fields}


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The checked problem of an answer."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert list(body)[:8] == ["type", "title", "status", "detail", "instance", "code", "request_id", "retryable"]
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return body
