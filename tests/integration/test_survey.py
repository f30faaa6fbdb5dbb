"""The survey between a real Postgres and a real Redis: what was lost is sent again, and nothing else."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
import redis
from sqlalchemy import text

from local.http import free_port
from tests.integration.stored import QUEUE, WORKER, claim, run_out, start, status, submit
from tests.local import wait_until
from tundish import queue, store
from tundish.blobs import Directory
from tundish.job import Status
from tundish.settings import Settings
from workers.batch import Draft, Target
from workers.chores import Tools, survey
from workers.chores.__main__ import work
from workers.claim import Custody
from workers.connect import redis_client
from workers.intake import unpack


def test_a_look_begins_where_the_last_one_ended_and_now_and_then_at_all_that_is_open(
    engine: store.Engine, emptied: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, look = list[tuple[UUID, UUID]](), store.survey

    def noted(connection: store.Connection, settled: UUID, *, since: UUID) -> dict[queue.Queue, store.Surveyed]:
        looks.append((since, settled))
        return look(connection, settled, since=since)

    monkeypatch.setattr(store, "survey", noted)
    tools, chore = Tools(Settings(), engine, emptied, None), survey.Survey()  # type: ignore[arg-type]  # no blobs
    for _ in range(3):
        chore.run(tools)
    chore._whole_at = 0.0
    chore.run(tools)
    assert [since for since, _ in looks] == [store.FIRST, looks[0][1], looks[1][1], store.FIRST]


def test_a_lost_message_is_found_between_two_looks_at_all_that_is_open(
    engine: store.Engine, emptied: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "SETTLED", timedelta(minutes=-1))  # all are older than what is looked at each time
    monkeypatch.setattr(survey, "AHEAD", timedelta(minutes=9))  # and younger than their messages
    ids = submit(engine, 3)
    ago = [datetime.now(UTC) - timedelta(minutes=each) for each in (3, 2, 1)]
    with engine.begin() as connection:
        for id, at in zip(ids, ago, strict=True):
            connection.execute(text("UPDATE jobs SET sent_at = :at WHERE id = :id"), {"id": id, "at": at})
    messages = [
        queue.encode(QUEUE, queue.Message((id.hex,), sent=at.timestamp())) for id, at in zip(ids, ago, strict=True)
    ]
    emptied.lpush(QUEUE.name, messages[0])
    tools, chore = Tools(Settings(), engine, emptied, None), survey.Survey()  # type: ignore[arg-type]  # no blobs
    assert chore.run(tools) == 0, "they are behind the message that waits"
    emptied.delete(QUEUE.name)
    emptied.lpush(QUEUE.name, messages[1], messages[2])
    assert chore.run(tools) == 1
    assert [unpack(each).ids for each in emptied.lrange(QUEUE.name, 0, -1)] == [
        (id.hex,) for id in ids[:1] + ids[:0:-1]
    ]
    assert chore.run(tools) == 0
    emptied.delete(QUEUE.name)
    assert chore.run(tools) == 2, "the first was sent just now"


def test_a_backlog_is_not_sent_again_by_a_host_whose_clock_is_ahead(
    engine: store.Engine, emptied: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tundish.queue.time", SimpleNamespace(time=lambda: 4e9))
    submit(engine, 3)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET sent_at = now() - interval '1 hour'"))
    tools, chore = Tools(Settings(), engine, emptied, None), survey.Survey()  # type: ignore[arg-type]  # no blobs
    assert chore.run(tools) == 3, "their messages are lost"
    monkeypatch.setattr(survey, "GRACE", timedelta(0))
    assert chore.run(tools) == 0, "they wait"


def test_jobs_expire_while_redis_is_away(engine: store.Engine) -> None:
    submit(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET sent_at = now() - interval '1 hour', expires_at = now()"))
    with redis_client(f"redis://127.0.0.1:{free_port()}") as away:
        tools = Tools(Settings(), engine, away, None)  # type: ignore[arg-type]  # it needs no blobs
        with pytest.raises(redis.RedisError):
            survey.Survey().run(tools)
    with engine.begin() as connection:
        assert len(store.expire(connection, b"{}")) == 1


def test_what_a_worker_lets_go_of_has_its_place_and_the_rest_is_not_sent_again(
    engine: store.Engine, kept: store.Kept, emptied: redis.Redis
) -> None:
    started, claimed, fetched, again, behind = ids = submit(engine, 5)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET sent_at = now() - interval '1 hour'"))
        sent_at = store.waiting(connection, ids)[0].sent_at
        # The sweep took it for lost: a worker has it still.
        connection.execute(text("UPDATE jobs SET sent_at = now() WHERE id = :id"), {"id": again})
    emptied.lpush(QUEUE.name, queue.encode(QUEUE, queue.Message((behind.hex,), sent=sent_at.timestamp())))
    target, custody = Target(QUEUE.model, QUEUE.version), Custody(WORKER, Settings(), engine, kept, emptied)
    assert custody.take([Draft(target, (started.hex,))], begin=True)
    assert custody.take([Draft(target, (claimed.hex,))], begin=False)
    custody.put_back([fetched.hex, claimed.hex])  # the second came twice, and is claimed
    custody.put_back([again.hex])
    custody.end()
    messages = emptied.lrange(QUEUE.name, 0, -1)
    placed = [(again.hex,), (fetched.hex,), (behind.hex,), (started.hex,)]
    assert [unpack(each).ids for each in reversed(messages)] == [(claimed.hex,), *placed]
    chore, tools = survey.Survey(), Tools(Settings(), engine, emptied, None)  # type: ignore[arg-type]  # no blobs
    for _ in messages[1:]:
        assert chore.run(tools) == 0
        emptied.rpop(QUEUE.name)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE jobs SET status = 2 WHERE id = (SELECT min(id::text)::uuid FROM jobs WHERE status = 0)")
            )


def test_no_job_of_a_dead_worker_waits_for_a_survey(
    engine: store.Engine, emptied: redis.Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks, goes_on = threading.Event(), threading.Event()
    look = emptied.lrange

    def slow(*of: int | str) -> object:
        looks.set()
        assert goes_on.wait(60)
        return look(*of)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(emptied, "lrange", slow)
    submit(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET sent_at = now() - interval '1 minute'"))
    tools = Tools(Settings(), engine, emptied, Directory(tmp_path, b""))
    working = threading.Thread(target=work, args=[tools])
    working.start()
    try:
        assert looks.wait(30)
        [id] = submit(engine)
        held, _ = claim(engine, [id])
        assert start(engine, held)
        run_out(engine, held)
        wait_until(lambda: status(engine, id) is Status.QUEUED, "it is queued again")
    finally:
        tools.stopped.set()
        goes_on.set()
        working.join()
