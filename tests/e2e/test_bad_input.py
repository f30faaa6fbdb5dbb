"""Whatever a client sends: a 4xx with a code, never a 5xx or a traceback, and the next good request works."""

import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import KEY
from tests.local import Local

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


@pytest.fixture(autouse=True)
def _and_the_next_good_request_works(client: httpx.Client) -> Iterator[None]:
    yield
    answer = client.post("/v1/jobs", json=typed(), headers={"Prefer": "wait=30"})
    assert (answer.status_code, answer.json()["output"]["text"]) == (200, "a")


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


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": "typed", "input": {}',
        b"{'model': 1}",
        b'{"model": "typed", "model": "echo", "input": {}}',
        b'{"model": "echo", "input": {"value": {"a": 1, "a": 2}}}',
        b'{"model": "echo", "input": {"value": NaN}}',
        b'{"model": "echo", "input": {"value": -Infinity}}',
        b'{"model": "echo", "input": {"value": 1e400}}',
        b'{"model": "echo", "input": {"value": ' + b"9" * 400 + b"}}",
        b'{"model": "echo", "input": {"value": "\\ud800"}}',
        b'{"model": "echo", "input": {"value": "\\udc00\\ud800"}}',
        b'{"model": "echo", "input": {"value": "\xff"}}',
        b'{"model": "echo", "input": {"value": "\xed\xa0\x80"}}',
        b"\xef\xbb\xbf{}",
        b'{"model": "echo", "input": {"value": "a\x00b"}}',
        b'{"model": "echo", "input": ' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"model": "echo", "input": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 10_000,
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:batch", "/v1/models/typed/jobs"])
def test_a_body_that_cannot_be_parsed_is_400(client: httpx.Client, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, problem(answer)["code"]) == (400, "invalid_json")


def test_a_nul_in_a_string_is_carried(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json=typed(text="a\0b"), headers={"Prefer": "wait=30"})
    assert (answer.status_code, answer.json()["output"]["text"]) == (200, "a\0b")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "image/png", "é"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:batch", "/v1/models/typed/jobs"])
def test_a_wrong_content_type_is_415(client: httpx.Client, path: str, content_type: str | None) -> None:
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    answer = client.post(path, content=json.dumps(GOOD).encode(), headers=headers)
    assert (answer.status_code, problem(answer)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:batch", "/v1/models/octets/jobs", "/v1/uploads"])
def test_a_compressed_body_is_415(client: httpx.Client, path: str) -> None:
    body = gzip.compress(json.dumps(typed()).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = client.post(path, content=body, headers=headers)
    assert (answer.status_code, problem(answer)["code"]) == (415, "unsupported_media_type")
    assert "gzip" in problem(answer)["detail"]


@pytest.mark.parametrize("coding", ["gzip, chunked", "GZIP,chunked", "deflate, gzip, chunked"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models/octets/jobs"])
def test_a_body_that_is_compressed_on_its_way_is_415(system: Local, path: str, coding: str) -> None:
    body = gzip.compress(json.dumps(typed()).encode())
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Transfer-Encoding": coding}
    connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=10)
    connection.request("POST", path, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), headers)
    answer = connection.getresponse()
    shown = httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    connection.close()
    assert (shown.status_code, problem(shown)["code"]) == (415, "unsupported_media_type")
    assert problem(shown)["detail"] == f"send the body as it is, not under Transfer-Encoding: {coding}"


def test_a_body_that_comes_in_chunks_is_taken(client: httpx.Client) -> None:
    headers = {"transfer-encoding": "Chunked"}
    assert client.post("/v1/models/octets/jobs", content=iter([b"a", b"b"]), headers=headers).status_code == 202


def test_a_body_that_says_it_is_not_compressed_is_taken(client: httpx.Client) -> None:
    headers = {"content-encoding": "Identity"}
    assert client.post("/v1/models/octets/jobs", content=b"a", headers=headers).status_code == 202


@pytest.mark.parametrize("content_type", ["image", "image/png; a", "a/" + 254 * "b", 'a/b; c="é"'])
def test_a_content_type_that_no_blob_store_could_carry_is_415(client: httpx.Client, content_type: str) -> None:
    answer = client.post("/v1/models/octets/jobs", content=b"a", headers=[(b"content-type", content_type.encode())])
    assert (answer.status_code, problem(answer)["code"]) == (415, "unsupported_media_type")
    assert "such as image/png" in problem(answer)["detail"]


@pytest.mark.parametrize(
    "parameters",
    [
        "charset=iso-8859-1",
        "Charset=UTF-16",
        'charset="utf-16"',
        'charset="\\utf-16"',
        "format=flowed; charset=latin1",
        "charset=utf-8; charset=utf-16",
        "charset=",
    ],
)
def test_a_text_in_another_charset_is_415(client: httpx.Client, parameters: str) -> None:
    headers = {"content-type": f"text/plain; {parameters}"}
    answer = client.post("/v1/models/shout/jobs", content="grüße".encode("latin-1"), headers=headers)
    assert (answer.status_code, problem(answer)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "parameters",
    [
        "charset=UTF-8",
        'CHARSET="Utf-8"',
        "charset=us-ascii",
        "charset=utf8",
        'charset="u\\tf-8"',
        'a="; charset=utf-16"',
        "charsets=a",
    ],
)
def test_a_text_in_utf_8_is_taken(client: httpx.Client, parameters: str) -> None:
    headers = {"content-type": f"text/plain; {parameters}", "prefer": "wait=30"}
    assert client.post("/v1/models/shout/jobs", content=b"a", headers=headers).json()["output"] == "A"


def test_the_charset_of_json_means_nothing(client: httpx.Client) -> None:  # RFC 8259, 11
    headers = {"content-type": "application/json; charset=utf-16"}
    assert client.post("/v1/models/typed/jobs", content=json.dumps(GOOD), headers=headers).status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain;charset=utf-8;",
        'a/b;  c=d ;\te="f;g\\""',
        "a/" + 253 * "b",
        "video/webm;codecs=vp8,opus",
        "multipart/form-data; boundary='a%b'",
    ],
)
def test_a_content_type_is_carried_as_it_came(client: httpx.Client, content_type: str) -> None:
    job = client.post("/v1/models/octets/jobs", content=b"a", headers={"content-type": content_type}).json()
    assert client.get(f"{job['urls']['self']}/input").headers["content-type"] == content_type


def test_json_for_a_model_of_bytes_is_415(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json={"model": "octets", "input": "abc"})
    assert answer.status_code == 415
    wanted = "octets takes bytes of any type, not JSON; send it to /v1/models/octets/jobs"
    assert problem(answer)["detail"].startswith(wanted)


def test_a_body_may_be_as_large_as_the_limit(client: httpx.Client) -> None:
    body = json.dumps(typed()).encode().ljust(4_000_000)
    assert client.post("/v1/jobs", content=body, headers={"content-type": "application/json"}).status_code == 202


def test_a_body_over_the_limit_is_413_with_its_length(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", content=b" " * 4_000_001, headers={"content-type": "application/json"})
    assert (answer.status_code, problem(answer)["code"]) == (413, "body_too_large")


def test_a_body_over_the_limit_is_413_without_its_length(client: httpx.Client) -> None:
    pieces = (b" " * 100_000 for _ in range(41))
    answer = client.post("/v1/jobs", content=pieces, headers={"content-type": "application/json"})
    assert (answer.status_code, problem(answer)["code"]) == (413, "body_too_large")


def test_a_length_far_over_the_limit_is_413_before_the_body_is_sent(system: Local) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=10)
    connection.putrequest("POST", "/v1/jobs")
    connection.putheader("Authorization", f"Bearer {KEY}")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(10**15))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"JUMP /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/jobs?metadata.k=\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
    ids=["nonsense", "an unknown method", "a URL that is not ASCII", "a length below 0", "a long URL", "connect"],
)
def test_what_is_not_http_is_a_problem_too(system: Local, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", system.port), timeout=10) as connection:
        connection.sendall(head)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        shown = httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    assert (shown.status_code, problem(shown)["code"]) == (400, "invalid_http")
    assert "or its method is unknown" in problem(shown)["detail"]
    assert shown.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/jobs"),
        ("PUT", "/v1/jobs"),
        ("GET", "/v1/jobs:batch"),
        ("POST", "/v1/models"),
        ("PATCH", "/healthz"),
        ("GET", "/v1/models/echo/jobs"),
    ],
)
def test_a_wrong_method_is_405(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, problem(answer)["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs", "GET, HEAD, POST"),
        ("/v1/jobs/x", "DELETE, GET, HEAD"),
        ("/v1/webhooks/x", "DELETE, GET, HEAD, PATCH"),
        ("/v1/blobs/x", "GET, HEAD, PUT"),
        ("/healthz", "GET, HEAD"),
    ],
)
def test_a_405_names_every_method_of_the_path(client: httpx.Client, path: str, allowed: str) -> None:
    answer = client.request("OPTIONS", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert problem(answer)["detail"] == f"OPTIONS is not served here; these are: {allowed}"


@pytest.mark.parametrize(
    "id",
    ["x", "job_", "job_01", "bat_01m8696rs2fqxtchjxvqf5px7g", "job_81m8696rs2fqxtchjxvqf5px7g",
     "job_01m8696rs2fqxtchjxvqf5px7u", "job_01M8696RS2FQXTCHJXVQF5PX7G", "%00", "job_01m8696rs2fqxtchjxvqf5px7g%0a",
     "job_00000000000000000000000000", "job_7zzzzzzzzzzzzzzzzzzzzzzzzz", "é" * 26],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/jobs/{}", "/v1/jobs/{}/result", "/v1/jobs/{}/input"])
def test_an_id_that_is_none_is_404(client: httpx.Client, path: str, id: str) -> None:
    answer = client.get(path.format(id))
    assert (answer.status_code, problem(answer)["code"]) == (404, "job_not_found")
    assert client.post(f"/v1/jobs/{id}/cancel").status_code == 404


@pytest.mark.parametrize("path", ["/v1/jobs/x%20y", "/v1/jobs/a:b@c%2Fd", "/v1/%C3%A9%22%3C%25"])
def test_a_problem_names_its_path_as_a_uri(client: httpx.Client, path: str) -> None:
    assert problem(client.get(path))["instance"] == path.replace("%2F", "/")


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/jobs/", "/v1/models/", "/v1/models/typed/", "/healthz/"])
def test_an_unknown_path_is_404(client: httpx.Client, path: str) -> None:
    for answer in (client.get(path), client.post(path, json=typed())):
        assert (answer.status_code, problem(answer)["code"]) == (404, "not_found")


@pytest.mark.parametrize("model", ["typed@1", "typed%401", "typed:default", "%74yped%3Adefault"])
def test_a_model_in_a_path_may_be_percent_encoded(client: httpx.Client, model: str) -> None:
    answer = client.post(f"/v1/models/{model}/jobs", json=GOOD)
    assert (answer.status_code, answer.json()["model"], answer.json()["version"]) == (202, "typed", "1")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "limit=٣", "status=done", "cursor=x", "batch=x", "created_after=yesterday",
     "created_before=2026-01-01", "created_after=9999-99-99T00:00:00Z", "created_after=1700000000", "nothing=1",
     "limit=1&limit=2", "model=%00", "model=echo:default", "model=echo@", "model="],
)  # fmt: skip
def test_a_list_refuses_what_it_does_not_know(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/v1/jobs?{query}")
    assert (answer.status_code, problem(answer)["code"]) == (422, "invalid_request")


def test_an_input_of_very_many_values_is_refused_without_a_look_for_each_fault(client: httpx.Client) -> None:
    shown = problem(client.post("/v1/jobs", json=typed(tags=[0] * 21_000)))
    assert [error["pointer"] for error in shown["errors"]] == ["/input"]
    inputs = [GOOD | {"tags": [0] * 9_000}] * 3 + [GOOD | {"count": "x"}]
    answers = client.post("/v1/jobs:batch", json={"model": "typed", "inputs": inputs}).json()["data"]
    told = [each["error"]["message"].split(": ")[1] for each in answers]
    assert told == ["/inputs/0/tags/0", "/inputs/1/tags/0", "/inputs/2", "/inputs/3/count"]


@pytest.mark.parametrize("query", ["priority=urgent", "expires_in=-1", "timeout=x", "nothing=1", "metadata=x"])
def test_options_of_a_query_are_checked(client: httpx.Client, query: str) -> None:
    answer = client.post(f"/v1/models/typed/jobs?{query}", json=GOOD)
    assert (answer.status_code, problem(answer)["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("query", ["a/b~c=1", "metadata.a/b~c=1&metadata.a/b~c=2"], ids=["unknown", "given twice"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/jobs"), ("POST", "/v1/models/typed/jobs")])
def test_a_pointer_to_a_parameter_is_escaped(client: httpx.Client, method: str, path: str, query: str) -> None:
    shown = problem(client.request(method, f"{path}?{query}", json=GOOD))
    assert [error["pointer"] for error in shown["errors"]] == [
        f"/{query.partition('=')[0]}".replace("a/b~c", "a~1b~0c")
    ]


@pytest.mark.parametrize("query", ["metadata.k=%ff", "metadata.%ff=v", "metadata.k=%ed%a0%80"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/jobs"), ("POST", "/v1/models/typed/jobs")])
def test_a_query_that_is_not_utf8_is_422(client: httpx.Client, method: str, path: str, query: str) -> None:
    answer = client.request(method, f"{path}?{query}", json=GOOD)
    assert (answer.status_code, problem(answer)["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("wait", ["x", "-1", "1e3", "nan", "", "٣"])
def test_a_wait_that_is_no_number_is_422(client: httpx.Client, wait: str) -> None:
    id = client.post("/v1/jobs", json=typed()).json()["id"]
    answer = client.get(f"/v1/jobs/{id}", params={"wait": wait})
    assert (answer.status_code, problem(answer)["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("key", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"])
def test_no_key_or_a_wrong_one_is_401(system: Local, key: str | None) -> None:
    headers = {} if key is None else {"authorization": key}
    with httpx.Client(base_url=system.url, trust_env=False, headers=headers) as anybody:
        for path in ("/v1/jobs", "/v1/models", "/v1/nothing", "/"):
            answer = anybody.get(path)
            assert (answer.status_code, problem(answer)["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            assert anybody.get(path).status_code == 200
