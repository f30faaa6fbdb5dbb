"""Notices of ended jobs, to a real Redis that closes connections, and to none."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.local import Local, wait_until
from tundish import queue
from tundish.ids import new_uuid
from workers import connect
from workers.notify import Notifier, notify

#: A name by which the server knows the connections of a test.
NAME = "notices-under-test"


@pytest.fixture
def client(system: Local) -> Iterator[redis.Redis]:
    with connect.redis_client(system.ps()["valkey"]["url"]) as client:
        client.connection_pool.connection_kwargs["client_name"] = NAME
        yield client


@pytest.fixture
def heard(client: redis.Redis) -> Iterator[Any]:
    with client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]  # redis-py's
        subscription.subscribe(queue.DONE, queue.OUTBOX)
        wait_until(lambda: client.pubsub_numsub(queue.OUTBOX)[0][1], "it listens")
        yield lambda: wait_until(lambda: subscription.get_message(), "a notice comes")


def test_who_waits_hears_of_each_end_and_the_courier_of_webhooks(client: redis.Redis, heard: Any) -> None:
    notifier = Notifier(client)
    for webhooks in (False, True, False):
        ids = [new_uuid() for _ in range(3)]
        notifier(ids, webhooks=webhooks)
        told = heard()
        assert (told["channel"], told["data"]) == (queue.DONE.encode(), b"".join(id.bytes for id in ids))
        if webhooks:
            assert heard()["channel"] == queue.OUTBOX.encode()
    notifier([], webhooks=False)
    notify(client, [new_uuid()], webhooks=True)
    assert {heard()["channel"], heard()["channel"]} == {queue.DONE.encode(), queue.OUTBOX.encode()}


def test_a_connection_that_was_closed_costs_no_notice(client: redis.Redis, heard: Any) -> None:
    notifier = Notifier(client)
    for _ in range(3):
        id = new_uuid()
        notifier([id], webhooks=False)
        assert heard()["data"] == id.bytes
        notices = [each for each in client.client_list() if each["name"] == NAME and each["cmd"] == "publish"]
        for each in notices:
            client.client_kill_filter(_id=each["id"])
        assert len(notices) == 1


def test_what_redis_refuses_stops_nothing(
    client: redis.Redis, heard: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(client)
    with monkeypatch.context() as patch:
        patch.setattr("workers.notify._commands", lambda *_: [("PUBLISH",)])
        notifier([new_uuid()], webhooks=False)
    id = new_uuid()
    with caplog.at_level(logging.WARNING):
        notifier([id], webhooks=False)
    assert "wrong number of arguments" in caplog.text
    assert heard()["data"] == id.bytes


def test_without_redis_nothing_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(redis.Redis(unix_socket_path="/nowhere"))
    with caplog.at_level(logging.WARNING):
        notifier([new_uuid()], webhooks=False)
    assert "not announced" in caplog.text
