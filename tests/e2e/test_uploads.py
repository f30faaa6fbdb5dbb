"""Uploads: a signed PUT, then jobs that name it. Each refusal says what to do."""

import os
import re
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.local import Local, ended, wait_until

BODY = b"\x00\xff" * 50_000


def upload(client: httpx.Client, body: bytes, content_type: str = "image/png", **more: Any) -> dict[str, Any]:
    """An upload made for `body`, which is not put yet."""
    asked = {"content_type": content_type, "size": len(body), **more}
    answer = client.post("/v1/uploads", json=asked)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def put(client: httpx.Client, made: dict[str, Any], body: bytes, **headers: str) -> httpx.Response:
    """As anybody may who has the URL, and no key."""
    with httpx.Client(base_url=client.base_url, trust_env=False) as anybody:
        return anybody.put(made["url"], content=body, headers={**made["headers"], **headers})


def uploaded(client: httpx.Client, body: bytes, content_type: str = "image/png", **more: Any) -> str:
    """The id of an upload that holds `body`."""
    made = upload(client, body, content_type, **more)
    answer = put(client, made, body)
    assert answer.status_code == 200, answer.text
    return str(made["id"])


def refused(client: httpx.Client, id: str, model: str = "octets") -> tuple[int, str]:
    answer = client.post("/v1/jobs", json={"model": model, "upload": id})
    return answer.status_code, answer.json()["code"]


def test_an_upload_has_every_field_of_the_contract(client: httpx.Client) -> None:
    made = upload(client, BODY)
    assert list(made) == ["id", "method", "url", "headers", "expires_at"]
    assert (made["id"][:4], made["method"]) == ("upl_", "PUT")
    assert made["headers"] == {"Content-Type": "image/png", "Content-Length": str(len(BODY))}


@pytest.mark.parametrize("sum", [{}, {"sha256": sha256(BODY).hexdigest().upper()}], ids=["no sum", "sum"])
def test_an_upload_is_the_input_of_jobs(client: httpx.Client, sum: dict[str, str]) -> None:
    id = uploaded(client, BODY, **sum)
    for _ in range(2):  # as often as one likes, while it lives
        job = client.post("/v1/jobs", json={"model": "octets", "upload": id}).json()
        assert ended(client, job["id"])["status"] == "succeeded"
        shown = client.get(f"/v1/jobs/{job['id']}/input", follow_redirects=True)
        assert (shown.content, shown.headers["content-type"]) == (BODY, "image/png")
        assert client.get(f"/v1/jobs/{job['id']}/result", follow_redirects=True).content == BODY[::-1]


def test_json_of_an_upload_is_checked_at_submit(client: httpx.Client) -> None:
    good = uploaded(client, b'{"value": [1, null]}', "application/json; charset=utf-8")
    job = client.post("/v1/jobs", json={"model": "echo", "upload": good}, headers={"Prefer": "wait=30"}).json()
    assert job["output"] == {"value": [1, None]}
    assert refused(client, uploaded(client, b'{"other": 1}', "application/json"), "echo") == (422, "invalid_input")
    answer = client.post("/v1/jobs", json={"model": "echo", "upload": uploaded(client, b"{", "application/json")})
    fault = "is not JSON as it is taken here: expecting property name enclosed in double quotes at byte 1"
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert answer.json()["detail"] == f"the upload {fault}"
    assert answer.json()["errors"] == [{"pointer": "/upload", "detail": fault}]
    assert refused(client, uploaded(client, b'{"a": 1, "a": 2}', "application/json"), "echo") == (422, "invalid_input")
    assert refused(client, uploaded(client, b"{}", "text/plain"), "echo") == (415, "unsupported_media_type")


def test_json_over_the_size_of_a_body_is_checked_by_its_worker(client: httpx.Client) -> None:
    body = b'{"value": 1' + b" " * 4_000_000 + b"}"
    job = client.post("/v1/jobs", json={"model": "echo", "upload": uploaded(client, body, "application/json")}).json()
    assert ended(client, job["id"])["output"] == {"value": 1}
    for wrong, says in (
        (b'{"value": 1, "more": 2', "the input does not fit the schema of echo: /more: not a field of the schema"),
        (b'{"value": 1, "value": 2', 'the input is not JSON as it is taken here: duplicate key "value"'),
    ):
        id = uploaded(client, wrong + b" " * 4_000_000 + b"}", "application/json")
        error = ended(client, client.post("/v1/jobs", json={"model": "echo", "upload": id}).json()["id"])["error"]
        assert (error["code"], error["message"]) == ("invalid_input", says)


def test_what_is_put_must_be_what_the_upload_was_made_for(client: httpx.Client) -> None:
    made = upload(client, BODY, sha256=sha256(BODY).hexdigest())
    too_large, too_short, other = BODY + b"x", BODY[:-1], BODY[:-1] + b"x"
    codes = {}
    for body in (too_large, too_short, other):
        answer = put(client, made, body, **{"Content-Length": str(len(body))})
        codes[body] = (answer.status_code, answer.json()["code"])
    assert codes[too_large] == (413, "upload_too_large")
    assert codes[too_short] == codes[other] == (422, "upload_mismatch")
    answer = put(client, made, BODY, **{"Content-Type": "text/html"})
    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_headers")
    answer = put(client, made, BODY, **{"Content-Range": "bytes 0-4/10"})
    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_headers")
    answer = put(client, made, BODY, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    for change in (
        ("size=100000", "size=200000"),
        ("image", "text"),
        ("uploads", "20200101"),
        ("expires=", "expires=9"),
    ):
        answer = put(client, {**made, "url": made["url"].replace(*change)}, BODY)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert refused(client, made["id"]) == (409, "upload_incomplete")
    assert put(client, made, BODY).status_code == 200
    assert client.post("/v1/jobs", json={"model": "octets", "upload": made["id"]}).status_code == 202


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"size": 5 * 2**30 + 1}, "/size"),
        ({"size": -1}, "/size"),
        ({"size": None}, "/size"),
        ({"sha256": "00"}, "/sha256"),
        ({"sha256": "0" * 64 + "\n"}, "/sha256"),
        ({"content_type": "image"}, "/content_type"),
        ({"content_type": "a/b\r\nx: y"}, "/content_type"),
        ({"content_type": "a/b\n"}, "/content_type"),
        ({"name": "x"}, "/name"),
    ],
)
def test_an_upload_that_cannot_be_is_refused(client: httpx.Client, change: dict[str, Any], pointer: str) -> None:
    asked = {"content_type": "image/png", "size": 1, **change}
    answer = client.post("/v1/uploads", json=asked)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert client.post("/v1/uploads", json={"content_type": 'a/b; c="d e"; f=g', "size": 5 * 2**30}).status_code == 201


@pytest.mark.parametrize("id", ["upl_01kb0000000000000000000000", "job_01kb0000000000000000000000", "x", "\0", ""])
def test_an_upload_that_is_none_is_not_found(client: httpx.Client, id: str) -> None:
    assert refused(client, id) == (404, "upload_not_found")


def test_a_job_has_one_input(client: httpx.Client) -> None:
    for body, pointer in (
        ({}, "/input"),
        ({"input": {"value": 1}, "upload": "x"}, "/upload"),
        ({"upload": None}, "/upload"),
    ):
        answer = client.post("/v1/jobs", json={"model": "echo", **body})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text


def test_an_upload_that_has_expired_is_refused(system: Local, client: httpx.Client) -> None:
    id = uploaded(client, BODY)
    with psycopg.connect(system.ps()["postgres"]["url"]) as connection:
        connection.execute("UPDATE uploads SET expires_at = now() WHERE id = (SELECT max(id::text)::uuid FROM uploads)")
    assert refused(client, id) == (409, "upload_expired")


def test_what_is_overwritten_after_submit_is_not_read(client: httpx.Client) -> None:
    made = upload(client, BODY)
    put(client, made, BODY)
    job = client.post("/v1/jobs", json={"model": "octets", "upload": made["id"]}).json()
    ended(client, job["id"])
    assert put(client, made, BODY[::-1]).status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    for method, call in (("get", "input"), ("post", "retry")):
        answer = client.request(method, f"/v1/jobs/{job['id']}/{call}")
        assert (answer.status_code, answer.json()["code"]) == (409, "input_unavailable")
        assert "409" in paths[f"/v1/jobs/{{id}}/{call}"][method]["responses"]


def test_a_retry_has_an_input_of_its_own(client: httpx.Client) -> None:
    made = upload(client, BODY)
    put(client, made, BODY)
    job = client.post("/v1/jobs", json={"model": "octets", "upload": made["id"]}).json()
    ended(client, job["id"])
    again = client.post(f"/v1/jobs/{job['id']}/retry").json()
    put(client, made, BODY[::-1])
    assert ended(client, again["id"])["status"] == "succeeded"
    assert client.get(f"/v1/jobs/{again['id']}/input", follow_redirects=True).content == BODY


def file_of(client: httpx.Client, job: dict[str, Any]) -> httpx.Response:
    done = ended(client, job["id"])
    assert done["status"] == "succeeded", done
    assert done["output"] is None
    return client.get(f"/v1/jobs/{job['id']}/result", follow_redirects=True)


@pytest.mark.parametrize("size", [0, 10, 200_000])
@pytest.mark.parametrize("by", ["upload", "body"])
def test_a_file_goes_in_and_out_with_its_content_type(client: httpx.Client, size: int, by: str) -> None:
    body = b"\xfe" * size
    if by == "upload":
        id = uploaded(client, body, "audio/wav")
        answer = client.post("/v1/jobs", json={"model": "inverted", "upload": id})
    else:
        answer = client.post("/v1/models/inverted/jobs", content=body, headers={"content-type": "audio/wav"})
    result = file_of(client, answer.json())
    assert (result.content, result.headers["content-type"]) == (b"\x01" * size, "audio/wav")


def test_a_file_goes_in_and_json_out(client: httpx.Client) -> None:
    job = client.post("/v1/jobs", json={"model": "measured", "upload": uploaded(client, BODY, "audio/wav")}).json()
    found = ended(client, job["id"])["output"]
    assert (found["size"], found["sha256"]) == (len(BODY), sha256(BODY).hexdigest())
    assert found["content_type"] == "audio/wav"
    wait_until(lambda: not Path(found["path"]).parent.exists(), "the batch's folder is removed")


def test_json_goes_in_and_a_file_out(client: httpx.Client) -> None:
    job = client.post("/v1/jobs", json={"model": "made", "input": {"size": 100_000}}).json()
    result = file_of(client, job)
    assert (len(result.content), result.headers["content-type"]) == (100_000, "video/mp4")


def test_a_file_that_says_it_is_json_is_not_shown_within_json(client: httpx.Client) -> None:
    body = bytes(255 - each for each in b'1}, "error": {')
    headers = {"content-type": "application/json", "prefer": "wait=30"}
    job = client.post("/v1/models/inverted/jobs", content=body, headers=headers).json()
    assert (job["status"], job["output"]) == ("succeeded", None)
    result = client.get(f"/v1/jobs/{job['id']}/result")
    assert (result.content, result.headers["content-type"]) == (b'1}, "error": {', "application/json; charset=utf-8")


def test_a_file_that_is_none_fails_alone(client: httpx.Client) -> None:
    faults = ["", "gone", "a path", "a folder", "raise", ""]
    inputs = [{"size": 70_000, "fault": fault} for fault in faults]
    data = client.post("/v1/jobs:batch", json={"model": "made", "inputs": inputs}).json()["data"]
    jobs = [ended(client, each["id"]) for each in data]
    codes = [job["error"] and job["error"]["code"] for job in jobs]
    assert codes == [None, "output_invalid", "output_invalid", "output_invalid", "model_error", None]


def test_a_text_goes_in_and_out_as_text(client: httpx.Client) -> None:
    text, headers = "grüße", {"content-type": "text/plain", "prefer": "wait=30"}
    job = client.post("/v1/models/shout/jobs", content=text.encode(), headers=headers).json()
    assert (job["output"], job["output_type"]) == ("GRÜSSE", "text/markdown; charset=utf-8")
    result = client.get(f"/v1/jobs/{job['id']}/result")
    assert (result.text, result.headers["content-type"]) == ("GRÜSSE", "text/markdown; charset=utf-8")
    job = client.post("/v1/jobs", json={"model": "shout", "input": text}, headers={"prefer": "wait=30"}).json()
    assert job["output"] == "GRÜSSE"
    data = client.post("/v1/jobs:batch", json={"model": "shout", "inputs": [text, 1]}).json()["data"]
    assert (ended(client, data[0]["id"])["output"], data[1]["error"]["code"]) == ("GRÜSSE", "invalid_input")
    for body, type, code, of_upload in (
        (b"\xff", "text/plain", "invalid_text", "invalid_input"),
        (b"x", "image/png", "unsupported_media_type", "unsupported_media_type"),
        (b"x", "text/plain; charset=utf-16", "unsupported_media_type", "unsupported_media_type"),
    ):
        answer = client.post("/v1/models/shout/jobs", content=body, headers={"content-type": type})
        assert answer.json()["code"] == code
        assert refused(client, uploaded(client, body, type), "shout")[1] == of_upload


def peak(pid: int) -> int:
    """Bytes of memory that a process has held at most since `forget_peak`."""
    [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) * 1024


def forget_peak(pid: int) -> int:
    """Bytes that it holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_no_process_holds_a_file_in_memory(system: Local, client: httpx.Client) -> None:
    pieces = [os.urandom(1 << 20)] * 96
    made = upload(client, b"".join(pieces), "video/mp4", sha256=sha256(b"".join(pieces)).hexdigest())
    before = {name: forget_peak(system.ps()[name]["pid"]) for name in ("api", "worker")}
    with httpx.Client(base_url=client.base_url, trust_env=False, timeout=60) as anybody:
        assert anybody.put(made["url"], content=iter(pieces), headers=made["headers"]).status_code == 200
    job = client.post("/v1/jobs", json={"model": "inverted", "upload": made["id"]}).json()
    assert ended(client, job["id"])["status"] == "succeeded"
    sum, wanted = sha256(), sha256()
    with client.stream("GET", f"/v1/jobs/{job['id']}/result", follow_redirects=True) as result:
        assert result.headers["content-type"] == "video/mp4"
        for piece in result.iter_bytes():
            sum.update(piece)
    for piece in pieces:
        wanted.update(piece.translate(bytes(255 - each for each in range(256))))
    assert sum.digest() == wanted.digest()
    grown = {name: peak(system.ps()[name]["pid"]) - rss for name, rss in before.items()}
    assert all(each < 32 * 2**20 for each in grown.values()), grown
