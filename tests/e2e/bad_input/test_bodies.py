"""Bodies that cannot be parsed, of wrong types, compressed, in another charset, too large."""

import gzip
import http.client
import json

import httpx
import pytest

from tests.conftest import KEY
from tests.e2e.bad_input.steps import GOOD, problem, typed
from tests.local import Local


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
