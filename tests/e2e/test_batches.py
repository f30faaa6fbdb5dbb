"""Batch files: uploaded, run line by line, and read back."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from tests.e2e.test_aliases import compare, now, put, shadow_of
from tests.e2e.test_uploads import forget_peak, peak, upload, uploaded
from tests.local import Local, wait_until
from tundish.batchfile import BYTES_MAX
from tundish.blobs import Directory, upload_key
from tundish.ids import from_text

FIELDS = (
    "id model status counts output_url error_url created_at finished_at expires_at cancel_requested metadata".split()
)


def jsonl(inputs: Iterable[Any]) -> bytes:
    """Lines with the custom ids `line-1` and so on."""
    lines = [json.dumps({"custom_id": f"line-{number}", "input": each}) for number, each in enumerate(inputs, 1)]
    return "".join(f"{line}\n" for line in lines).encode()


def posted(client: httpx.Client, body: bytes, model: str = "echo", **options: Any) -> dict[str, Any]:
    asked = {"model": model, "upload": uploaded(client, body, "application/jsonl"), **options}
    answer = client.post("/v1/batches", json=asked)
    assert answer.status_code == 201, answer.text
    batch: dict[str, Any] = answer.json()
    return batch


def seen(client: httpx.Client, id: str) -> dict[str, Any]:
    batch: dict[str, Any] = client.get(f"/v1/batches/{id}").json()
    return batch


def batch_ended(client: httpx.Client, id: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        batch = seen(client, id)
        return batch if batch["finished_at"] else None

    return wait_until(found, "the batch ended", 60)


def lines(client: httpx.Client, url: str | None) -> list[dict[str, Any]]:
    """A file's lines, read as anybody may who has its URL."""
    if url is None:
        return []
    with httpx.Client(base_url=client.base_url, trust_env=False) as anybody:
        answer = anybody.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jsonl")
    return [json.loads(line) for line in answer.text.splitlines()]


def counted(batch: dict[str, Any]) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: count for name, count in batch["counts"].items() if count}


def test_a_file_is_run_line_by_line(client: httpx.Client) -> None:
    batch = posted(client, jsonl({"value": number} for number in range(1200)), metadata={"run": "7"})
    assert list(batch) == FIELDS
    assert (batch["id"][:4], batch["status"], batch["metadata"]) == ("bat_", "validating", {"run": "7"})
    done = batch_ended(client, batch["id"])
    assert (done["status"], done["error_url"]) == ("succeeded", None)
    assert client.get(f"/v1/batches/{batch['id']}/error").json()["code"] == "no_result"
    assert done["counts"] == {"total": 1200, "queued": 0, "running": 0, "succeeded": 1200, "failed": 0, "canceled": 0}
    outputs = lines(client, done["output_url"])
    assert list(outputs[0]) == ["custom_id", "id", "output"]
    assert [(each["custom_id"], each["output"]["value"]) for each in outputs] == [
        (f"line-{number + 1}", number) for number in range(1200)
    ]
    job = client.get(f"/v1/jobs/{outputs[7]['id']}").json()
    assert (job["batch"], job["priority"], job["output"]) == (batch["id"], "low", {"value": 7})
    page = client.get("/v1/jobs", params={"batch": batch["id"], "limit": 100}).json()
    assert {each["batch"] for each in page["data"]} == {batch["id"]}


def test_a_line_that_is_none_fails_alone_and_the_batch_succeeds(client: httpx.Client) -> None:
    large = "x" * 4_000_000  # with what is around it, over TUNDISH_MAX_BODY
    body = [
        b'{"custom_id": "good", "input": {"do": "ok"}}\r',
        b"",
        b"not json",
        b'{"custom_id": "twice", "custom_id": "twice", "input": {"do": "ok"}}',
        b'{"custom_id": "no input"}',
        b'{"custom_id": 7, "input": {"do": "ok"}}',
        b'{"custom_id": "more", "input": {"do": "ok"}, "model": "moody"}',
        b'{"custom_id": "unfit", "input": {"do": 7}}',
        b'{"custom_id": "good", "input": {"do": "ok"}}',
        json.dumps({"custom_id": "large", "input": {"do": large}}).encode(),
        b'{"custom_id": "unfit", "input": {"do": "ok"}}',
        b'{"custom_id": "rejected", "input": {"do": "reject"}}',
        b'{"custom_id": "\\u00e9\\n", "input": {"do": "ok"}}',  # the last line end may be missing
    ]
    done = batch_ended(client, posted(client, b"\n".join(body), "moody")["id"])
    assert (done["status"], counted(done)) == ("succeeded", {"total": 13, "succeeded": 2, "failed": 11})
    outputs = lines(client, done["output_url"])
    assert [(each["custom_id"], each["output"]) for each in outputs] == [
        ("good", {"number": 1.0}),
        ("\u00e9\n", {"number": 1.0}),
    ]
    errors = lines(client, done["error_url"])
    assert list(errors[0]) == ["custom_id", "line", "error"]
    assert [(each["line"], each["custom_id"], each["error"]["code"]) for each in errors] == [
        (2, None, "invalid_json"),
        (3, None, "invalid_json"),
        (4, None, "invalid_json"),
        (5, "no input", "invalid_line"),
        (6, None, "invalid_line"),
        (7, "more", "invalid_line"),
        (8, "unfit", "invalid_input"),
        (9, "good", "duplicate_custom_id"),
        (10, None, "line_too_large"),
        (11, "unfit", "duplicate_custom_id"),
        (12, "rejected", "rejected"),
    ]
    assert errors[6]["error"]["details"] == {"pointer": "/do"}


def test_outputs_of_every_size_are_in_the_file(client: httpx.Client) -> None:
    values = ["x" * 70_000, "y" * 1_500_000, {"a\nb": [1]}]  # a blob, one that is streamed, and a row
    done = batch_ended(client, posted(client, jsonl({"value": value} for value in values))["id"])
    assert [each["output"]["value"] for each in lines(client, done["output_url"])] == values


def test_texts_are_strings_and_a_file_is_null(client: httpx.Client) -> None:
    texts = ["a\nb", "a" + "\u00e9" * 530_000]  # of the second, a piece ends within a character
    done = batch_ended(client, posted(client, jsonl(texts), "shout")["id"])
    assert [each["output"] for each in lines(client, done["output_url"])] == [text.upper() for text in texts]
    done = batch_ended(client, posted(client, jsonl([{"size": 3}]), "made")["id"])
    [line] = lines(client, done["output_url"])
    assert line["output"] is None
    assert client.get(f"/v1/jobs/{line['id']}/result", follow_redirects=True).content == b"\0\0\0"


def test_counts_are_told_while_it_runs_and_cancel_returns_what_is_done(client: httpx.Client, tmp_path: Path) -> None:
    """The first four are one batch of the device, held at its gate."""
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "open").touch()
    inputs = [{"folder": str(tmp_path / ("a" if number < 4 else "b")), "name": f"{number}"} for number in range(300)]
    id = posted(client, jsonl(inputs), "gated")["id"]

    def some_done() -> bool:
        counts: dict[str, int] = seen(client, id)["counts"]
        return counts["total"] == 300 and counts["succeeded"] >= 4 and counts["running"] > 0

    wait_until(some_done, "the batch is half way")
    before = seen(client, id)
    assert (before["status"], before["output_url"], sum(before["counts"].values())) == ("running", None, 600)
    for name in ("output", "error"):
        assert client.get(f"/v1/batches/{id}/{name}").json()["code"] == "not_finished"
    asked = client.post(f"/v1/batches/{id}/cancel")
    assert (asked.status_code, asked.json()["cancel_requested"]) == (200, True)
    done = batch_ended(client, id)  # the held ones let go when they are told
    assert done["status"] == "canceled"
    assert counted(done)["succeeded"] >= 4
    assert counted(done)["canceled"] + counted(done)["succeeded"] == 300
    names = [each["custom_id"] for each in lines(client, done["output_url"])]
    errors = lines(client, done["error_url"])
    assert {each["error"]["code"] for each in errors} == {"canceled"}
    assert sorted([*names, *(each["custom_id"] for each in errors)]) == sorted(f"line-{n}" for n in range(1, 301))
    again = client.post(f"/v1/batches/{id}/cancel").json()
    assert (again["status"], again["finished_at"]) == ("canceled", done["finished_at"])


def test_a_batch_that_expires_returns_what_is_done(client: httpx.Client, tmp_path: Path) -> None:
    inputs = [{"folder": str(tmp_path), "name": f"{number}"} for number in range(40)]
    id = posted(client, jsonl(inputs), "gated", expires_in=3)["id"]
    wait_until(lambda: seen(client, id)["counts"]["failed"] > 0, "what waited has expired")
    (tmp_path / "open").touch()
    done = batch_ended(client, id)
    errors = lines(client, done["error_url"])
    assert (done["status"], {each["error"]["code"] for each in errors}) == ("expired", {"expired"})
    assert len(errors) + len(lines(client, done["output_url"])) == 40


def test_a_batch_tells_its_webhook_and_its_jobs_tell_nothing(system: Local, client: httpx.Client) -> None:
    batch = posted(client, jsonl([{"do": "ok"}, {"do": "reject"}]), "moody", webhook="http://127.0.0.1:9/hook")
    done = batch_ended(client, batch["id"])
    with psycopg.connect(system.ps()["postgres"]["url"]) as connection:
        [(event, url, body)] = connection.execute(  # the event of a job would name its batch
            "SELECT event, url, body FROM deliveries WHERE convert_from(body, 'UTF8') LIKE %s", [f"%{batch['id']}%"]
        ).fetchall()
    told = json.loads(body)
    assert (event, url, told["type"]) == ("batch.succeeded", "http://127.0.0.1:9/hook", event)
    assert told["timestamp"] == told["data"]["finished_at"]
    fields = [name for name in FIELDS if not name.endswith("_url")]
    assert {name: told["data"][name] for name in fields} == {name: done[name] for name in fields}
    for name in ("output", "error"):
        assert told["data"][f"{name}_url"] == f"/v1/batches/{batch['id']}/{name}"
        found = client.get(told["data"][f"{name}_url"])
        assert found.status_code == 307
        assert lines(client, found.headers["location"]) == lines(client, done[f"{name}_url"])


def test_a_repeat_makes_no_second_batch(client: httpx.Client) -> None:
    asked = {"model": "echo", "upload": uploaded(client, jsonl([{"value": 1}]), "application/jsonl")}
    key = {"Idempotency-Key": str(uuid4())}
    first, repeat = (client.post("/v1/batches", json=asked, headers=key) for _ in range(2))
    assert (repeat.status_code, repeat.content) == (201, first.content)
    assert first.headers["location"] == repeat.headers["location"] == f"/v1/batches/{first.json()['id']}"
    assert repeat.headers["idempotency-replayed"] == "true"
    other = client.post("/v1/batches", json={**asked, "model": "echo@1"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_batches_are_listed_newest_first(client: httpx.Client) -> None:
    ids = [posted(client, jsonl([{"value": 1}]))["id"] for _ in range(3)]
    first = client.get("/v1/batches?limit=2").json()
    second = client.get("/v1/batches", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [each["id"] for each in [*first["data"], *second["data"]]] == ids[::-1]
    for query in ("limit=0", "cursor=x", "status=running"):
        assert client.get(f"/v1/batches?{query}").status_code == 422


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "nosuch"}, 404, "model_not_found"),
        ({"model": "octets"}, 415, "unsupported_media_type"),
        ({"upload": "upl_01kb0000000000000000000000"}, 404, "upload_not_found"),
        ({"upload": None}, 422, "invalid_request"),
        ({"priority": "low"}, 422, "invalid_request"),
        ({"expires_in": 700_000}, 422, "invalid_request"),
        ({"webhook": "http://10.0.0.1/"}, 422, "invalid_request"),
        ({"metadata": {"": "x"}}, 422, "invalid_request"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(
    client: httpx.Client, change: dict[str, Any], status: int, code: str
) -> None:
    asked = {"model": "echo", "upload": uploaded(client, b"x"), **change}
    answer = client.post("/v1/batches", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if status == 422:
        assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(change))}"


def sparse(system: Local, client: httpx.Client, size: int) -> str:
    """An upload of so many zeros, which take no room."""
    id: str = client.post("/v1/uploads", json={"content_type": "application/jsonl", "size": size}).json()["id"]
    blobs, key = system.folder / "blobs", upload_key(1, from_text("upl", id) or UUID(int=0))
    Directory(blobs, b"").put(key, b"", "")
    [file] = (blobs / key).parent.iterdir()
    os.truncate(file, size)
    return id


def test_the_largest_file_is_taken(system: Local, client: httpx.Client) -> None:
    asked = {"model": "echo", "upload": sparse(system, client, BYTES_MAX)}
    done = batch_ended(client, client.post("/v1/batches", json=asked).json()["id"])
    [error] = lines(client, done["error_url"])
    assert (done["status"], error["error"]["code"]) == ("succeeded", "line_too_large")


def test_an_upload_that_is_empty_too_large_or_incomplete_is_refused(system: Local, client: httpx.Client) -> None:
    for id, fault in (
        (uploaded(client, b""), "is empty"),
        (sparse(system, client, BYTES_MAX + 1), "has 200000001 bytes, and a batch file at most 200000000"),
    ):
        answer = client.post("/v1/batches", json={"model": "echo", "upload": id})
        assert (answer.status_code, answer.json()["errors"]) == (422, [{"pointer": "/upload", "detail": fault}])
    made = upload(client, b"x", "application/jsonl")
    answer = client.post("/v1/batches", json={"model": "echo", "upload": made["id"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_incomplete")


@pytest.mark.parametrize("id", ["bat_01kb0000000000000000000000", "job_01kb0000000000000000000000", "x"])
def test_a_batch_that_is_none_is_not_found(client: httpx.Client, id: str) -> None:
    asked = [client.get(f"/v1/batches/{id}{file}") for file in ("", "/output", "/error")]
    for answer in (*asked, client.post(f"/v1/batches/{id}/cancel")):
        assert (answer.status_code, answer.json()["code"]) == (404, "batch_not_found")


def test_a_file_of_too_many_lines_runs_none(client: httpx.Client) -> None:
    done = batch_ended(client, posted(client, b"{}\n" * 50_001)["id"])
    assert (done["status"], done["output_url"]) == ("failed", None)
    assert counted(done) == {"total": 50_001, "failed": 50_001}
    [error] = lines(client, done["error_url"])
    assert (error["custom_id"], error["line"], error["error"]["code"]) == (None, 1, "too_many_lines")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(("count", "size"), [(20, 3_900_000), (20_000, 3_900)], ids=["few long lines", "many lines"])
def test_no_process_holds_a_batch_file_in_memory(system: Local, client: httpx.Client, count: int, size: int) -> None:
    """78 MB; a file of 200 MB takes as much (46 MB with 50,000 lines, and 67 with twelve lines of 16 MB)."""
    upload = uploaded(client, jsonl([{"value": "x" * size}] * count), "application/jsonl")
    before = {name: forget_peak(system.ps()[name]["pid"]) for name in ("api", "chores")}
    batch = client.post("/v1/batches", json={"model": "echo", "upload": upload}).json()
    assert counted(batch_ended(client, batch["id"])) == {"total": count, "succeeded": count}
    grown = {name: peak(system.ps()[name]["pid"]) - rss for name, rss in before.items()}
    assert all(each < 64 * 2**20 for each in grown.values()), grown


def shadows(client: httpx.Client, batch: str) -> list[dict[str, Any]]:
    """The copies of the jobs of a batch, as they are."""
    page = client.get("/v1/jobs", params={"batch": batch, "limit": 100}).json()["data"]
    return [client.get(f"/v1/jobs/{shadow_of(job['id'])}").json() for job in page]


def test_lines_have_shadows_which_count_for_nothing(client: httpx.Client) -> None:
    put(client, "lines", {"1": 1}, shadow="2")
    since = now(client)
    inputs = [{"values": [float(number), 1.0]} for number in range(8)] + [{"values": [0.5] * 30_000}, {"values": "no"}]
    batch = batch_ended(client, posted(client, jsonl(inputs), "scale:lines")["id"])
    assert (batch["status"], counted(batch)) == ("succeeded", {"total": 10, "succeeded": 9, "failed": 1})
    assert len(lines(client, batch["output_url"])) == 9
    wait_until(lambda: all(each["finished_at"] for each in shadows(client, batch["id"])), "the copies ran")
    copies = shadows(client, batch["id"])
    assert len(copies) == 9
    assert {(each["version"], each["status"], each["priority"]) for each in copies} == {("2", "succeeded", "low")}
    [agreed] = compare(client, since)["shadows"]
    assert (agreed["version"], agreed["shadow"], agreed["pairs"]) == ("1", "2", 9)


def test_a_batch_takes_its_shadows_along_when_it_is_cancelled(client: httpx.Client) -> None:
    put(client, "stopped", {"1": 1}, shadow="2")
    assert client.post("/v1/models/scale/pause").status_code == 200
    try:
        id = posted(client, jsonl({"values": [1.0]} for _ in range(5)), "scale:stopped")["id"]
        wait_until(lambda: len(shadows(client, id)) == 5, "all lines are jobs")
        assert {each["status"] for each in shadows(client, id)} == {"queued"}
        client.post(f"/v1/batches/{id}/cancel")
        assert counted(batch_ended(client, id)) == {"total": 5, "canceled": 5}
        assert {each["status"] for each in shadows(client, id)} == {"canceled"}
    finally:
        client.post("/v1/models/scale/resume")
