"""Ends that no worker made wake who waits."""

import pytest
import redis

from tests.integration.events.steps import heard
from tests.integration.stored import claim, run_out, start, submit
from tests.local import wait_until
from tundish import queue, store
from tundish.blobs import open_blobs
from tundish.ids import new_uuid
from tundish.job import Priority
from tundish.settings import Settings
from workers.chores import Tools, batches, expire, reap, survey


@pytest.mark.parametrize("how", ["expire", "reap"])
def test_ends_that_chores_make_wake_who_waits(
    settings: Settings, engine: store.Engine, client: redis.Redis, how: str
) -> None:
    tools = Tools(settings, engine, client, open_blobs(settings))
    [id] = submit(engine, expires_in=0.001 if how == "expire" else 60)
    with heard(client, queue.DONE) as ids:
        if how == "expire":
            survey.Survey().run(tools)
            wait_until(lambda: expire.run(tools) or None, "it expired")
        else:
            held, _ = claim(engine, [id])
            assert start(engine, held)
            with engine.begin() as connection:
                store.cancel(connection, 1, id)
            run_out(engine, held)
            assert reap.run(tools) == 1
        assert ids() == {id}


def test_a_batch_that_is_canceled_wakes_who_waits_for_a_line(
    settings: Settings, engine: store.Engine, client: redis.Redis
) -> None:
    batch, job = new_uuid(), store.NewJob(new_uuid(), 1, "m", "1", Priority.LOW, 60.0, "text/plain", 1, b"1")
    with engine.begin() as connection:
        store.new_batch(connection, store.NewBatch(batch, 1, "m", "blob", "etag", 1, 60.0))
        store.begin_batch(connection, batch, 1)
        begun = store.read_batch(connection, 1, batch)
        assert begun
        assert store.add_lines(connection, begun, [store.NewLine(1, "a", job.id)], [job], end=1, lease=0.0)
        store.cancel_batch(connection, 1, batch)
    with heard(client, queue.DONE) as ids:
        assert batches.run(Tools(settings, engine, client, open_blobs(settings))) == 1
        assert ids() == {job.id}
