"""Payloads over HTTP: in their row or in a blob, bit for bit, whole and in parts."""

import json
import re
from typing import Any

import httpx
import pytest

from tests.local import ended, submit


@pytest.mark.parametrize(
    "value",
    ["a\0b", "\u2028\U0001f600é", "x" * 300_000, 1e308, -0.0, 12345678901234567890, {"": {"\0": []}}],
    ids=["nul", "unicode", "large", "double", "minus zero", "64 bits", "empty key"],
)
def test_inputs_are_carried_bit_for_bit(client: httpx.Client, value: Any) -> None:
    raw = json.dumps({"value": value}, indent=3).encode()
    body = b'{"model": "echo", "input": ' + raw + b"}"
    id = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"}).json()["id"]
    assert client.get(f"/v1/jobs/{id}/input", follow_redirects=True).content == raw
    job = ended(client, id)
    assert job["status"] == "succeeded", job
    assert client.get(f"/v1/jobs/{id}/result", follow_redirects=True).json() == {"value": value}


def test_an_integer_may_be_written_as_a_number_with_a_fraction_of_nothing(client: httpx.Client) -> None:
    raw = b'{"text": "1.0", "count": 1e2, "share": 0.25, "tags": [], "inner": {"flag": true}}'
    id = client.post("/v1/models/typed/jobs", content=raw, headers={"content-type": "application/json"}).json()["id"]
    output = ended(client, id)["output"]
    assert (output["text"], output["count"], output["share"]) == ("1.0", 100, 0.25)


@pytest.mark.parametrize("over", [0, 1])
def test_payloads_up_to_a_size_lie_in_their_row(client: httpx.Client, over: int) -> None:
    most = 65_536  # TUNDISH_INLINE_MAX
    value = {"value": "y" * (most + over - len('{"value":""}'))}
    job = ended(client, submit(client, "echo", value)["id"])
    assert (job["output"], job["output_size"]) == (None if over else value, most + over)
    for call in ("result", "input"):
        answer = client.get(f"/v1/jobs/{job['id']}/{call}")
        assert answer.status_code == (307 if over else 200)
        assert client.get(answer.url, follow_redirects=True).json() == value


def test_large_outputs_lie_in_blobs_behind_a_signed_url(client: httpx.Client) -> None:
    id = submit(client, "echo", {"value": "y" * 200_000})["id"]
    job = ended(client, id)
    assert job["output"] is None
    assert job["output_size"] == len('{"value":""}') + 200_000
    answer = client.get(f"/v1/jobs/{id}/result")
    assert answer.status_code == 307
    url = answer.headers["location"]
    with httpx.Client(base_url=client.base_url, trust_env=False) as anybody:
        assert anybody.get(url).json() == {"value": "y" * 200_000}
        assert anybody.get(url).headers["content-type"] == "application/json"
        assert anybody.get(url.replace("output", "input")).status_code == 401
        assert anybody.get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 401
        assert anybody.get(re.sub("expires=[0-9]+", "expires=99999999999", url)).status_code == 401


def test_bytes_go_in_and_out_with_their_content_type(client: httpx.Client) -> None:
    answer = client.post("/v1/models/octets/jobs", content=b"\x00\xff abc", headers={"content-type": "image/png"})
    assert answer.status_code == 202, answer.text
    id = answer.json()["id"]
    shown = client.get(f"/v1/jobs/{id}/input")
    assert (shown.content, shown.headers["content-type"]) == (b"\x00\xff abc", "image/png")
    job = ended(client, id)
    assert (job["output"], job["output_type"], job["output_size"]) == (None, "application/octet-stream", 6)
    assert client.get(f"/v1/jobs/{id}/result").content == b"cba \xff\x00"


@pytest.mark.parametrize("size", [4, 100_000], ids=["in its row", "in a blob"])
def test_a_text_of_another_charset_keeps_its_content_type(client: httpx.Client, size: int) -> None:
    body = b"caf\xe9" * (size // 4)
    answer = client.post("/v1/models/octets/jobs", content=body, headers={"content-type": "text/csv"})
    shown = client.get(f"/v1/jobs/{answer.json()['id']}/input", follow_redirects=True)
    assert (shown.content, shown.headers["content-type"]) == (body, "text/csv")


@pytest.mark.parametrize(
    ("range", "status", "piece"),
    [
        ("bytes=2-6", 206, b"value"),
        ("bytes=-3", 206, b'x"}'),
        ("bytes=100012-, 2-6", 206, b"value"),
        ("bytes=6-2", 200, None),
        ("bytes=", 200, None),
        ("lines=0-1", 200, None),
    ],
)
def test_a_part_of_a_large_result_is_served_and_what_is_no_range_is_none(
    client: httpx.Client, range: str, status: int, piece: bytes | None
) -> None:
    job = ended(client, submit(client, "echo", {"value": "x" * 100_000})["id"])
    got = client.get(client.get(job["urls"]["result"]).headers["location"], headers={"Range": range})
    assert got.status_code == status
    assert got.content == (piece or b'{"value":"%b"}' % (b"x" * 100_000))


def test_a_part_behind_the_end_of_a_result_is_a_problem(client: httpx.Client) -> None:
    job = ended(client, submit(client, "echo", {"value": "x" * 100_000})["id"])
    location = client.get(job["urls"]["result"]).headers["location"]
    refused = client.get(location, headers={"Range": "bytes=100012-"})
    assert (refused.status_code, refused.headers["content-type"]) == (416, "application/problem+json")
    assert refused.headers["content-range"] == "bytes */100012"
    assert refused.json()["code"] == "range_not_satisfiable"


def test_the_head_of_a_result_is_that_of_all_of_it(client: httpx.Client) -> None:
    job = ended(client, submit(client, "echo", {"value": "x" * 100_000})["id"])
    head = client.head(client.get(job["urls"]["result"]).headers["location"], headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.headers["content-length"]) == (200, "100012")
