"""What is not HTTP; methods, paths, ids, queries and keys that are wrong."""

import http.client
import socket

import httpx
import pytest

from tests.conftest import KEY
from tests.e2e.bad_input.steps import GOOD, problem, typed
from tests.local import Local


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
