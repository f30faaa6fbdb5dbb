"""The outbox against a real Postgres: what a move writes into it, and who hears of it."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from tests.integration.delivered import (
    SECRET,
    endpoint,
    finish,
    rows,
    take,
)
from tests.integration.stored import HUNG, LOST, claim, end, run_out, set_clock, start, submit
from tundish import outbox, store
from tundish.ids import new_uuid
from tundish.job import Code, Priority, Status
from tundish.outcome import Done, Failed
from workers import record as recording


def test_the_record_statement_writes_nothing_past_an_endpoint(engine: store.Engine) -> None:
    [id] = submit(engine)
    held, [job] = claim(engine, [id])
    endpoint(engine)
    with engine.begin() as connection:
        assert store.record(connection, [end(job)], [store.Ran(held, 1.0)], unheard_by={1}) == []
        assert store.start(connection, held, lease=30.0)(), "nor is the claim closed"
        assert store.record(connection, [end(job)], [store.Ran(held, 1.0)], unheard_by={2}) == [id]


@pytest.mark.parametrize("hinted", [False, True], ids=["first heard of", "heard of before"])
def test_an_end_is_told_to_the_endpoints_that_want_it(engine: store.Engine, tmp_path: Path, hinted: bool) -> None:
    recording._heard.clear()
    recording._heard.update({1} if hinted else ())
    wants, _, disabled, other = endpoint(engine), endpoint(engine, ["job.started"]), endpoint(engine), endpoint(engine)
    with engine.begin() as connection:
        store.change_endpoint(connection, 1, disabled.id, enabled=False)
        store.change_endpoint(connection, 1, other.id, events=["job.failed"])
    ids = submit(engine, 3)
    recorded = finish(engine, ids, tmp_path, Done(b"1", "application/json"))
    assert (sorted(recorded.ids), recorded.webhooks) == (ids, True)
    assert sorted(rows(engine)) == [(id, wants.id, "job.succeeded") for id in ids]
    assert recording._heard == {1}
    [failed] = submit(engine)
    finish(engine, [failed], tmp_path, Failed(Code.REJECTED, "no"))
    assert {row for row in rows(engine) if row[0] == failed} == {(failed, e.id, "job.failed") for e in (wants, other)}


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(days=9), timedelta(days=-3)])
def test_an_end_is_recorded_and_told_though_the_workers_clock_is_wrong(
    engine: store.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    endpoint(engine)
    ids = submit(engine, 2)
    set_clock(monkeypatch, ahead)
    finish(engine, ids, tmp_path, Done(b"1", "application/json"))
    assert len(take(engine)) == 2


def test_a_hint_that_is_out_of_date_costs_nothing_but_a_statement(engine: store.Engine, tmp_path: Path) -> None:
    recording._heard.add(1)
    for _ in range(2):
        [id] = submit(engine)
        recorded = finish(engine, [id], tmp_path, Done(b"1", "application/json"))
        assert (recorded.ids, recorded.webhooks) == ([id], False)
        assert rows(engine) == []
        assert recording._heard == set()


def test_endpoints_hear_of_their_own_tenant_alone(engine: store.Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name, webhook_secret) VALUES (2, 'b', :s)"), {"s": SECRET})
    endpoint(engine, tenant=2)
    [id] = submit(engine, tenant=1)
    assert finish(engine, [id], tmp_path, Done(b"1", "application/json")).ids == [id]
    assert rows(engine) == []


def test_a_start_is_told_where_somebody_wants_it(engine: store.Engine) -> None:
    [id] = submit(engine)
    held, _ = claim(engine, [id])
    with engine.begin() as connection:
        assert store.start(connection, held, lease=30.0)() == store.Started(set(), heard=False)
    wants = endpoint(engine, ["job.started"])
    with engine.begin() as connection:
        assert store.start(connection, held, lease=30.0)() == store.Started(set(), heard=True)
        outbox.announce_start(connection, {(id, 1): 1}, "")
    [(job, told, event, body)] = rows(engine, "job, endpoint, event, body")
    assert (job, told, event) == (id, wants.id, "job.started")
    assert (json.loads(body)["type"], json.loads(body)["data"]["status"]) == ("job.started", "running")


def test_of_what_has_started_no_end_is_told_nor_another_attempt(engine: store.Engine, tmp_path: Path) -> None:
    """Its own worker may come late to tell: the batch was quick, or the worker stood still."""
    endpoint(engine, ["job.started", "job.succeeded", "job.canceled"])
    ended, runs = submit(engine, 2)
    finish(engine, [ended], tmp_path, Done(b"1", "application/json"))
    held, _ = claim(engine, [runs])
    with engine.begin() as connection:
        store.start(connection, held, lease=30.0)()
        outbox.announce_start(connection, {(ended, 1): 1, (runs, 1): 2}, "")
    assert rows(engine, "job, event") == [(ended, "job.succeeded")]


def test_jobs_of_a_batch_file_and_shadows_tell_nothing_of_their_own(engine: store.Engine, tmp_path: Path) -> None:
    endpoint(engine)
    ids = submit(engine, 3)
    with engine.begin() as connection:
        for column, id in zip(("batch", "shadow_of"), ids, strict=False):
            connection.execute(text(f"UPDATE requests SET {column} = :id WHERE id = :id"), {"id": id})
    finish(engine, ids, tmp_path, Done(b"1", "application/json"))
    assert [row[0] for row in rows(engine)] == [ids[2]]


def test_the_ends_of_many_jobs_at_once_are_told_in_time(engine: store.Engine) -> None:
    """As of workers that died together while all that they ran was to be canceled. Where it is not in time, a sweep
    comes upon the same claims again, and upon no others."""
    endpoint(engine)
    claimed = [claim(engine, submit(engine, 500))[0] for _ in range(20)]
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET cancel_requested = true"))
    run_out(engine, *claimed)
    with engine.begin() as connection:
        ended = store.reap(connection, store.Judgement(3, LOST, HUNG)).ended
        connection.execute(text("SET LOCAL statement_timeout = 2000"))
        outbox.announce(connection, ended, "")
    assert {event for (event,) in rows(engine, "event")} == {"job.canceled"}
    assert len(rows(engine)) == len(ended) == 10_000


def test_a_body_is_under_20_kb_whatever_the_job_holds(engine: store.Engine) -> None:
    metadata = json.dumps({f"{n}": "\x01" * 120 for n in range(16)}).encode()
    new = store.NewJob(
        new_uuid(), 1, "m", "1", Priority.NORMAL, 60.0, "text/plain", 1, b"1", metadata=metadata, webhook="https://a/"
    )
    bare = store.NewJob(new_uuid(), 1, "m", "1", Priority.NORMAL, 60.0, "text/plain", 1, b"1", webhook="https://a/")
    with engine.begin() as connection:
        store.submit(connection, [new, bare])
    held, jobs = claim(engine, [new.id, bare.id])
    assert start(engine, held)
    fault = json.dumps({"code": "model_error", "message": "m" * 50_000, "retryable": False}).encode()
    ends = [store.Finished(new.id, 1, Status.FAILED, error=fault)]
    ends.append(store.Finished(bare.id, 1, Status.SUCCEEDED, "application/json", json.dumps("x" * 16_000).encode()))
    with engine.begin() as connection:
        store.record(connection, ends, [store.Ran(held, 1.0)])
        outbox.announce(connection, [(job.id, 1) for job in jobs], "")
    bodies = {job: json.loads(body) for job, body in rows(engine, "job, body")}
    assert all(size < 20_000 for (size,) in rows(engine, "length(body)"))
    assert bodies[new.id]["data"]["error"]["message"].startswith("mmm")
    assert len(bodies[bare.id]["data"]["output"]) == 16_000


def test_urls_of_one_receiver_share_a_lane_whatever_follows_its_name() -> None:
    urls = ("/", "/a", "/b?c=/d", "", "?a=1", "?b=2", "#c")
    assert len({outbox.lane(1, f"https://{host}{rest}") for rest in urls for host in ("a.example", "A.example")}) == 1
    others = {
        (1, "https://a.example:8443/"),
        (1, "http://a.example/"),
        (1, "https://b.example/"),
        (2, "https://a.example/"),
    }
    assert len({outbox.lane(*each) for each in others}) == 4


def test_the_number_of_endpoints_is_bounded(engine: store.Engine) -> None:
    new = [store.Endpoint(new_uuid(), 1, "https://example.com/", ["job.failed"]) for _ in range(3)]
    with engine.begin() as connection:
        assert [store.add_endpoint(connection, each, SECRET, most=2) for each in new] == [True, True, False]
        assert [each.id for each in store.endpoints(connection, 1, before=UUID(int=(1 << 128) - 1), limit=9)] == [
            new[1].id,
            new[0].id,
        ]
        assert store.endpoint(connection, 2, new[0].id) is None


def test_one_endpoint_too_many_is_a_conflict(serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.webhooks.MOST", 1)
    asked = {"url": "https://example.com/hook", "events": ["job.failed"]}
    with serve() as client:
        first, second = (client.post("/v1/webhooks", json=asked) for _ in range(2))
    assert (first.status_code, second.status_code, second.json()["code"]) == (201, 409, "too_many_endpoints")
