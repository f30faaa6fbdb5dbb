"""Models that do not exist, and JSON that is not what its model or the call takes."""

from typing import Any

import httpx
import pytest

from tests.e2e.bad_input.steps import GOOD, problem, typed


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("nosuch", "model_not_found"),
        ("typed@9", "version_not_found"),
        ("typed:canary", "alias_not_found"),
        ("typed@", "version_not_found"),
        ("typed@1:default", "version_not_found"),
        ("", "model_not_found"),
        ("a\0b", "model_not_found"),
        ("../../etc/passwd", "model_not_found"),
    ],
)
def test_an_unknown_model_is_404(client: httpx.Client, model: str, code: str) -> None:
    answer = client.post("/v1/jobs", json={"model": model, "input": {}})
    assert (answer.status_code, problem(answer)["code"]) == (404, code)


def test_a_word_that_is_none_of_a_few_is_answered_with_these(client: httpx.Client) -> None:
    shown = problem(client.post("/v1/jobs", json=typed() | {"priority": "urgent"}))
    assert shown["detail"] == "/priority: 'urgent' is none of low, normal, high"
    hook = {"url": "https://example.com/", "events": ["job.failed", "job.done"]}
    shown = problem(client.post("/v1/webhooks", json=hook))
    assert shown["detail"].startswith("/events/1: 'job.done' is none of job.started, job.succeeded, job.failed, ")


def test_a_webhook_without_https_is_told_what_an_operator_can_allow(client: httpx.Client) -> None:
    shown = problem(client.post("/v1/jobs", json=typed() | {"webhook": "http://1.1.1.1/"}))
    assert "TUNDISH_OUTBOUND_ALLOW" in shown["detail"]


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (typed(text=1), "invalid_input", "/input/text"),
        (typed(text=None), "invalid_input", "/input/text"),
        (typed(count="1"), "invalid_input", "/input/count"),
        (typed(count=1.5), "invalid_input", "/input/count"),
        (typed(count=True), "invalid_input", "/input/count"),
        (typed(count=2**63), "invalid_input", "/input/count"),
        (typed(count=-(2**63) - 1), "invalid_input", "/input/count"),
        (typed(share="x"), "invalid_input", "/input/share"),
        (typed(tags="x"), "invalid_input", "/input/tags"),
        (typed(tags=["a", 2]), "invalid_input", "/input/tags/1"),
        (typed(inner={}), "invalid_input", "/input/inner/flag"),
        (typed(inner={"flag": True, "a/b~c": 1}), "invalid_input", "/input/inner/a~1b~0c"),
        (typed(extra=1), "invalid_input", "/input/extra"),
        ({"model": "typed", "input": {}}, "invalid_input", "/input/text"),
        ({"model": "typed", "input": []}, "invalid_input", "/input"),
        ({"model": "typed", "input": None}, "invalid_input", "/input"),
        ({"model": "typed"}, "invalid_request", "/input"),
        ({"input": {}}, "invalid_request", "/model"),
        ({"model": 1, "input": {}}, "invalid_request", "/model"),
        ([], "invalid_request", ""),
        ("null", "invalid_request", ""),
        (typed() | {"prio": "high"}, "invalid_request", "/prio"),
        (typed() | {"a/b~c": 1}, "invalid_request", "/a~1b~0c"),
        (typed() | {"a`": 1}, "invalid_request", "/a`"),
        (typed() | {"x` - at `$.y": 1}, "invalid_request", "/x` - at `$.y"),
        (typed() | {"x` - at `$.y/~`": 1}, "invalid_request", "/x` - at `$.y~1~0`"),
        (typed() | {"priority": "urgent"}, "invalid_request", "/priority"),
        (typed() | {"expires_in": 0}, "invalid_request", "/expires_in"),
        (typed() | {"expires_in": 10**9}, "invalid_request", "/expires_in"),
        (typed() | {"expires_in": 604801}, "invalid_request", "/expires_in"),
        (typed() | {"timeout": -1}, "invalid_request", "/timeout"),
        (typed() | {"metadata": {"a": "", "a/b": 1, "c": 1}}, "invalid_request", "/metadata/a~1b"),
        (typed() | {"metadata": {"a": None}}, "invalid_request", "/metadata/a"),
        (typed() | {"metadata": ["a"]}, "invalid_request", "/metadata"),
        (typed() | {"metadata": {str(i): "" for i in range(17)}}, "invalid_request", "/metadata"),
        (typed() | {"metadata": {"k" * 65: ""}}, "invalid_request", "/metadata"),
        (typed() | {"metadata": {"é" * 32 + "k": ""}}, "invalid_request", "/metadata"),
        (typed() | {"metadata": {"k": "v" * 2048}}, "invalid_request", "/metadata"),
        (typed() | {"webhook": "ftp://example.com"}, "invalid_request", "/webhook"),
        (typed() | {"webhook": "https://10.0.0.1/x"}, "invalid_request", "/webhook"),
        (typed() | {"webhook": "https://user@example.com/"}, "invalid_request", "/webhook"),
        (typed() | {"sticky_key": "a\0"}, "invalid_request", "/sticky_key"),
    ],
)
def test_valid_json_that_is_refused_is_422_with_a_pointer(
    client: httpx.Client, body: Any, code: str, pointer: str
) -> None:
    answer = client.post("/v1/jobs", json=body)
    shown = problem(answer)
    assert (answer.status_code, shown["code"]) == (422, code), shown
    assert pointer in [error["pointer"] for error in shown["errors"]]


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_batch_has_1_to_10000_inputs(client: httpx.Client, count: int) -> None:
    answer = client.post("/v1/jobs:batch", json={"model": "echo", "inputs": [{"value": 1}] * count})
    shown = problem(answer)
    assert (answer.status_code, shown["code"]) == (422, "invalid_request")
    assert [error["pointer"] for error in shown["errors"]] == ["/inputs"]


@pytest.mark.parametrize(
    "metadata",
    [{str(i): "" for i in range(16)}, {"é" * 32: ""}, {"k" * 64: ""}, {"k": "v" * 2047}],
    ids=["16 keys", "a key of 64 bytes", "a key of 64 letters", "2 KiB"],
)
def test_metadata_may_be_as_large_as_is_promised(client: httpx.Client, metadata: dict[str, str]) -> None:
    answer = client.post("/v1/jobs", json=typed() | {"metadata": metadata})
    assert (answer.status_code, answer.json()["metadata"]) == (202, metadata)


def test_a_nul_in_a_string_is_carried(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json=typed(text="a\0b"), headers={"Prefer": "wait=30"})
    assert (answer.status_code, answer.json()["output"]["text"]) == (200, "a\0b")


def test_an_input_of_very_many_values_is_refused_without_a_look_for_each_fault(client: httpx.Client) -> None:
    shown = problem(client.post("/v1/jobs", json=typed(tags=[0] * 21_000)))
    assert [error["pointer"] for error in shown["errors"]] == ["/input"]
    inputs = [GOOD | {"tags": [0] * 9_000}] * 3 + [GOOD | {"count": "x"}]
    answers = client.post("/v1/jobs:batch", json={"model": "typed", "inputs": inputs}).json()["data"]
    told = [each["error"]["message"].split(": ")[1] for each in answers]
    assert told == ["/inputs/0/tags/0", "/inputs/1/tags/0", "/inputs/2", "/inputs/3/count"]
