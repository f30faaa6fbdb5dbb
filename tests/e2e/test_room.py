"""Uploads to a model that reads its inputs into memory, on a worker that has little of it."""

import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest
import redis

from tests.e2e.test_uploads import forget_peak, peak
from tests.local import TREE, Local, ended, wait_until
from tests.narrow_worker import ROOM
from tundish import store
from tundish.blobs import Directory, upload_key
from tundish.ids import new_uuid, to_text
from tundish.job import Priority
from tundish.media import OCTETS
from tundish.queue import Queue, send

MIB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_batch_of_uploads_takes_no_more_memory_than_there_is_room(system: Local, client: httpx.Client) -> None:
    shown = system.ps()
    blobs = Directory(Path(system.folder, "blobs"), b"")
    environment = system.beside(TUNDISH_MODELS="tests.narrow_worker:Weighed")

    def uploaded(size: int) -> store.NewJob:
        key = upload_key(1, new_uuid())
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            blobs.put_file(key, file, OCTETS)
        etag = blobs.stat(key).etag
        return store.NewJob(
            new_uuid(), 1, "weighed", "1", Priority.NORMAL, 60.0, OCTETS, size, None, blob=key, etag=etag
        )

    sizes = [24 * MIB] * 7 + [ROOM + MIB] + [24 * MIB] * 8
    with subprocess.Popen([sys.executable, "-m", "tests.narrow_worker"], cwd=TREE, env=environment) as worker:
        try:
            wait_until(lambda: client.get("/v1/models/weighed").status_code == 200, "the model is known")
            before = forget_peak(worker.pid)
            jobs = [uploaded(size) for size in sizes]
            engine = store.engine(shown["postgres"]["url"])
            with engine.begin() as connection:
                store.submit(connection, jobs)
            engine.dispose()
            # One message, so that they are one batch.
            with redis.Redis.from_url(shown["valkey"]["url"]) as broker:
                send(broker, [(Queue("weighed", "1", Priority.NORMAL), job.id) for job in jobs])
            done = [ended(client, to_text("job", job.id)) for job in jobs]
            grown = peak(worker.pid) - before
        finally:
            worker.kill()
    error = done.pop(7)["error"]
    assert (error["code"], "tundish.File" in error["message"]) == ("out_of_memory", True)
    assert f"has {ROOM + MIB} bytes" in error["message"]
    assert [(job["status"], job["output"], job["attempt"]) for job in done] == [
        ("succeeded", {"value": 24 * MIB}, 1)
    ] * 15
    assert grown < ROOM + 32 * MIB, grown
