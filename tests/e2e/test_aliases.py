"""Versions of one model behind an alias: moved while jobs flow, split, sticky, shadowed and compared."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import KEY
from tests.local import Local, ended, wait_until
from tundish.blobs import Directory, job_prefix
from tundish.ids import from_text, shadow_id, to_text


def put(client: httpx.Client, alias: str, weights: dict[str, int], shadow: str | None = None) -> None:
    routing: dict[str, Any] = {"weights": weights, "shadow": shadow}
    answer = client.put(f"/v1/models/scale/aliases/{alias}", json=routing)
    assert (answer.status_code, answer.json()) == (200, routing)


def submit(client: httpx.Client, alias: str, count: int, **options: Any) -> list[str]:
    inputs = [{"values": [float(number), 1.0]} for number in range(count)]
    answer = client.post("/v1/jobs:batch", json={"model": f"scale:{alias}", "inputs": inputs, **options})
    assert answer.status_code == 202, answer.text
    return [each["id"] for each in answer.json()["data"]]


def versions(client: httpx.Client, ids: list[str]) -> list[str]:
    return [ended(client, id)["version"] for id in ids]


def compare(client: httpx.Client, since: str, asked: str = "1,2,3") -> dict[str, Any]:
    answer = client.get("/v1/models/scale/compare", params={"versions": asked, "since": since})
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def now(client: httpx.Client) -> str:
    """A moment after all jobs that were submitted before, by the clock that ids are made with."""
    [id] = submit(client, "default", 1)
    return (datetime.fromisoformat(ended(client, id)["created_at"]) + timedelta(milliseconds=1)).isoformat()


def shadow_of(job: str) -> str:
    """The id of a job's shadow: its own with one bit turned."""
    id = from_text("job", job)
    assert id
    return to_text("job", shadow_id(id))


def test_the_first_version_is_the_default_and_later_ones_never_move_it(client: httpx.Client) -> None:
    shown = client.get("/v1/models/scale").json()
    assert [version["version"] for version in shown["versions"]] == ["1", "2", "3"]
    assert shown["aliases"]["default"] == {"weights": {"1": 100}, "shadow": None}


def test_an_alias_moves_at_once_while_jobs_flow_and_none_fails(system: Local, client: httpx.Client) -> None:
    put(client, "flow", {"1": 1})

    def flow() -> list[str]:
        with system.client(KEY) as mine:
            return [id for _ in range(10) for id in submit(mine, "flow", 6)]

    with ThreadPoolExecutor() as pool:
        flowing = [pool.submit(flow) for _ in range(3)]
        for turn in range(8):
            wanted = str(turn % 2 + 1)
            put(client, "flow", {wanted: 1})
            assert set(versions(client, submit(client, "flow", 3))) == {wanted}
        jobs = [ended(client, id) for each in flowing for id in each.result()]
    assert {job["status"] for job in jobs} == {"succeeded"}
    factor = {"1": 1.0, "2": 1.00001}
    assert all(job["output"]["values"][1] == factor[job["version"]] for job in jobs)  # the version that it names ran


def test_a_canary_gets_its_share(client: httpx.Client) -> None:
    put(client, "canary", {"1": 90, "2": 10})
    since = now(client)
    ids = submit(client, "canary", 2000)
    for id in ids[-64:]:
        ended(client, id)
    shown = compare(client, since)["versions"]
    assert shown["1"]["jobs"] + shown["2"]["jobs"] == 2000
    assert 200 - 67 < shown["2"]["jobs"] < 200 + 67  # five standard deviations
    put(client, "canary", {"1": 90, "2": 0})
    assert set(versions(client, submit(client, "canary", 20))) == {"1"}


def test_jobs_of_one_sticky_key_get_one_version(client: httpx.Client) -> None:
    put(client, "sticky", {"1": 50, "2": 50})
    found = {}
    for user in range(20):
        [found[user]] = set(versions(client, submit(client, "sticky", 3, sticky_key=f"user {user}")))
    assert set(found.values()) == {"1", "2"}
    put(client, "sticky", {"1": 25, "2": 75})
    stayed = [user for user, version in found.items() if version == "2"]
    for user in stayed:
        assert versions(client, submit(client, "sticky", 1, sticky_key=f"user {user}")) == ["2"]


@pytest.mark.parametrize(
    ("alias", "body", "pointers"),
    [
        ("x", {"weights": {"1": 1, "9": 1}}, ["/weights/9"]),
        ("x", {"weights": {"1": -1, "2": 5}}, ["/weights/1"]),
        ("x", {"weights": {"1": 0, "2": 0}}, ["/weights"]),
        ("x", {"weights": {}}, ["/weights"]),
        ("x", {"weights": {"2": 1, "1": 1.5}}, ["/weights/1"]),
        ("x", {"weights": {"1": True}}, ["/weights/1"]),
        ("x", {"weights": {"1": 1_000_001}}, ["/weights/1"]),
        ("x", {"weights": {"1": 1, "a/b~": 1}, "shadow": "9"}, ["/weights/a~1b~0", "/shadow"]),
        ("x", {"weights": {"1": 1}, "color": 1}, ["/color"]),
        ("x", {"shadow": "1"}, ["/weights"]),
        ("X", {"weights": {"1": 1}}, ["/alias"]),
    ],
)
def test_a_routing_that_cannot_be(client: httpx.Client, alias: str, body: object, pointers: list[str]) -> None:
    answer = client.put(f"/v1/models/scale/aliases/{alias}", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert "x" not in client.get("/v1/models/scale").json()["aliases"]


def test_an_alias_of_no_model(client: httpx.Client) -> None:
    answer = client.put("/v1/models/none/aliases/default", json={"weights": {"1": 1}})
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


def test_a_shadow_runs_a_copy_and_is_never_delivered(system: Local, client: httpx.Client) -> None:
    put(client, "shadowed", {"1": 1}, shadow="2")
    since = now(client)
    marked = {"run": str(uuid4())}
    jobs = submit(client, "shadowed", 8, metadata=marked)
    for size in (30_000, 300_000):
        large = {"model": "scale:shadowed", "input": {"values": [0.5] * size}, "metadata": marked}
        jobs.append(client.post("/v1/jobs", json=large).json()["id"])
    copies = [shadow_of(job) for job in jobs]
    for job, copy in zip(jobs, copies, strict=True):
        first, second = ended(client, job), ended(client, copy)
        assert (first["version"], first["shadow_of"], first["priority"]) == ("1", None, "normal")
        assert (second["version"], second["shadow_of"], second["priority"]) == ("2", job, "low")
        assert second["status"] == "succeeded"
    listed = client.get("/v1/jobs", params={"metadata.run": marked["run"], "limit": 100}).json()["data"]
    assert {job["id"] for job in listed} == set(jobs)
    [agreed] = compare(client, since)["shadows"]
    assert (agreed["version"], agreed["shadow"], agreed["pairs"]) == ("1", "2", 10)
    # 0 of the first input is 0 in both; 1 is off by one part in 100,000; the last outputs are too large.
    assert (agreed["close"], agreed["not_compared"], agreed["different"]) == (9, 1, 0)
    assert agreed["max_abs_diff"] == pytest.approx(7 * 1e-5, rel=1e-3)
    assert agreed["min_cosine"] == pytest.approx(1.0)
    shown = compare(client, since)["versions"]
    assert (shown["1"]["shadows"], shown["2"]["jobs"], shown["2"]["shadows"]) == (0, 10, 10)
    blob = from_text("job", copies[8])
    assert blob
    Directory(system.folder / "blobs", b"").delete_prefix(job_prefix(1, blob))
    [agreed] = compare(client, since)["shadows"]
    assert (agreed["close"], agreed["not_compared"], agreed["different"]) == (8, 2, 0)


def test_the_job_of_a_key_has_one_shadow(client: httpx.Client) -> None:
    put(client, "keyed", {"1": 1}, shadow="3")
    since = now(client)
    key, job = str(uuid4()), {"model": "scale:keyed", "input": {"values": [1.0]}}
    first, again = (client.post("/v1/jobs", json=job, headers={"Idempotency-Key": key}).json() for _ in range(2))
    assert first["id"] == again["id"]
    ended(client, shadow_of(first["id"]))
    assert compare(client, since)["versions"]["3"]["jobs"] == 1


def test_compare_tells_errors_and_outputs_that_differ(client: httpx.Client) -> None:
    put(client, "risky", {"1": 1}, shadow="3")
    since = now(client)
    inputs = [{"values": [3.0, 4.0]}, {"values": [-1.0]}]
    answer = client.post("/v1/jobs:batch", json={"model": "scale:risky", "inputs": inputs}).json()
    jobs = [each["id"] for each in answer["data"]]
    for job in jobs:
        ended(client, job)
        ended(client, shadow_of(job))
    shown = compare(client, since, "1,3")
    assert shown["complete"]
    assert set(shown["versions"]) == {"1", "3"}
    one, three = shown["versions"]["1"], shown["versions"]["3"]
    assert (one["succeeded"], one["errors"]) == (2, {})
    assert (three["jobs"], three["succeeded"], three["failed"], three["errors"]) == (2, 1, 1, {"rejected": 1})
    for name in ("queued", "predict", "total"):
        quantiles = one["latency_ms"][name]
        assert 0 <= quantiles["p50"] <= quantiles["p90"] <= quantiles["p99"]
    [agreed] = shown["shadows"]
    assert (agreed["different"], agreed["only_shadow_failed"], agreed["pairs"]) == (1, 1, 2)
    assert (agreed["max_abs_diff"], agreed["min_cosine"]) == (4.0, pytest.approx(1.0))
    assert {each["job"] for each in agreed["examples"]} == set(jobs)
    for name, value in (("versions", "1,9"), ("since", "yesterday"), ("color", "1")):
        assert client.get("/v1/models/scale/compare", params={name: value}).status_code == 422
    assert client.get("/v1/models/none/compare").status_code == 404


def test_a_job_takes_its_shadow_along_when_it_goes(client: httpx.Client) -> None:
    put(client, "gone", {"1": 1}, shadow="2")
    [job] = submit(client, "gone", 1)
    copy = shadow_of(job)
    ended(client, job)
    ended(client, copy)
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert client.get(f"/v1/jobs/{copy}").status_code == 404
    # Paused, both wait: a cancel of the one is a cancel of the other, but not the other way round.
    assert client.post("/v1/models/scale/pause").json()["paused"] is True
    try:
        first, second = submit(client, "gone", 2)
        assert client.post(f"/v1/jobs/{first}/cancel").json()["status"] == "canceled"
        assert client.get(f"/v1/jobs/{shadow_of(first)}").json()["status"] == "canceled"
        assert client.post(f"/v1/jobs/{shadow_of(second)}/cancel").json()["status"] == "canceled"
        assert client.get(f"/v1/jobs/{second}").json()["status"] == "queued"
    finally:
        assert client.post("/v1/models/scale/resume").json()["paused"] is False
    wait_until(lambda: client.get(f"/v1/jobs/{second}").json()["status"] == "succeeded", "it runs after the pause")
