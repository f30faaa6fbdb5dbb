"""Uploads as they are stored, kept and deleted."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import redis
from sqlalchemy import text
from starlette.testclient import TestClient

from api.pins import Pins
from tests.integration.stored import QUEUE, submit
from tests.local import Local, wait_until
from tundish import store
from tundish.blobs import BlobMissing, BlobUnavailable, Directory, open_blobs, upload_key, upload_prefix
from tundish.errors import Problem
from tundish.ids import new_uuid, to_text
from tundish.settings import Settings
from workers.chores import Tools, uploads
from workers.chores.__main__ import work

BODY = b"body"
SUM = "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5"


@pytest.fixture
def blobs(tmp_path: Path) -> Directory:
    return Directory(tmp_path, b"secret")


def made(
    engine: store.Engine, blobs: Directory, *, size: int = len(BODY), sha256: str | None = None, body: bytes = BODY
) -> UUID:
    """An upload of tenant 1 that holds `body`."""
    id = new_uuid()
    with engine.begin() as connection:
        at = store.new_upload(connection, store.NewUpload(id, 1, "text/plain", size, sha256, 6000.0), grace=3000.0)
    assert timedelta(seconds=5000) < at - datetime.now(UTC) < timedelta(seconds=7000)
    blobs.put(upload_key(1, id), body, "text/plain")
    return id


def aged(engine: store.Engine, seconds: float) -> None:
    with engine.begin() as connection:
        for column in ("expires_at", "kept_until"):
            connection.execute(text(f"UPDATE uploads SET {column} = {column} - interval '{seconds} seconds'"))


def pin(database_url: str, blobs: Directory, tenant: int, id: UUID) -> str:
    """The ETag, or the code of the problem."""

    async def pinned() -> str:
        engine = store.async_engine(database_url, 1)
        try:
            return (await Pins(engine, blobs, retention=100_000.0).pin(tenant, to_text("upl", id))).etag
        except Problem as problem:
            return problem.code
        finally:
            await engine.dispose()

    return asyncio.run(pinned())


def test_an_upload_is_its_tenants_own(database_url: str, engine: store.Engine, blobs: Directory) -> None:
    id = made(engine, blobs)
    assert pin(database_url, blobs, 2, id) == "upload_not_found"
    assert pin(database_url, blobs, 1, id) == blobs.stat(upload_key(1, id)).etag
    with engine.begin() as connection:
        assert store.read_upload(connection, 2, id) is None
        assert not store.keep_upload(connection, 2, id, etag="", keep=1.0)


def test_an_upload_is_pinned_until_it_expires(database_url: str, engine: store.Engine, blobs: Directory) -> None:
    id = made(engine, blobs)
    aged(engine, 5000)
    assert pin(database_url, blobs, 1, id) == pin(database_url, blobs, 1, id)
    aged(engine, 2000)
    assert pin(database_url, blobs, 1, id) == "upload_expired"
    with engine.begin() as connection:
        assert not store.keep_upload(connection, 1, id, etag="", keep=1.0)


class Careless(Directory):
    """A store that takes whatever is put, and says so."""

    def holds_to(self, key: str, sha256: str) -> bool:
        return False


def test_a_store_that_checks_nothing_is_checked(database_url: str, engine: store.Engine, tmp_path: Path) -> None:
    careless = Careless(tmp_path, b"secret")
    assert pin(database_url, careless, 1, made(engine, careless, size=5)) == "upload_mismatch"
    assert pin(database_url, careless, 1, made(engine, careless, sha256=SUM, body=b"bodY")) == "upload_mismatch"
    right = made(engine, careless, sha256=SUM)
    etag = pin(database_url, careless, 1, right)
    assert etag == careless.stat(upload_key(1, right)).etag
    with engine.begin() as connection:
        found = store.read_upload(connection, 1, right)
    assert found is not None
    assert found.etag == etag, "it is not summed up again"


def test_an_upload_that_is_overwritten_while_it_is_checked_holds_something(
    database_url: str, engine: store.Engine, tmp_path: Path
) -> None:
    class Overwritten(Careless):
        def holds_to(self, key: str, sha256: str) -> bool:
            self.put(key, BODY, "text/plain")
            return super().holds_to(key, sha256)

    blobs = Overwritten(tmp_path, b"secret")
    assert pin(database_url, blobs, 1, made(engine, blobs, sha256=SUM)) == "upload_mismatch"


def test_what_has_expired_goes_with_its_blob_and_what_a_job_reads_stays(
    database_url: str, engine: store.Engine, blobs: Directory, system: Local
) -> None:
    unused, used = made(engine, blobs), made(engine, blobs)
    pin(database_url, blobs, 1, used)
    tools = Tools(Settings(), engine, redis.Redis.from_url(system.ps()["valkey"]["url"]), blobs)
    aged(engine, 8000)
    assert uploads.run(tools) == 0, "a PUT that began in time may still end"
    aged(engine, 2000)
    assert uploads.run(tools) == 1
    with pytest.raises(BlobMissing):
        blobs.stat(upload_key(1, unused))
    assert blobs.get(upload_key(1, used)) == BODY
    aged(engine, 100_000 + 2 * 86400)
    with engine.begin() as other:
        assert store.lock(other, "uploads")
        assert uploads.run(tools) == 0, "one process at a time"
    assert uploads.run(tools) == 1
    with pytest.raises(BlobMissing):
        blobs.stat(upload_key(1, used))
    assert pin(database_url, blobs, 1, used) == "upload_not_found"


def test_an_upload_that_cannot_be_deleted_keeps_no_other(engine: store.Engine, blobs: Directory, system: Local) -> None:
    stays, goes = made(engine, blobs), made(engine, blobs)
    aged(engine, 10_000)
    delete = blobs.delete_prefix

    class Locked(Directory):
        def delete_prefix(self, prefix: str) -> None:
            if prefix == upload_prefix(1, stays):
                raise BlobUnavailable("a lock is on it")
            delete(prefix)

    tools = Tools(Settings(), engine, redis.Redis.from_url(system.ps()["valkey"]["url"]), Locked(blobs._root, b""))
    assert uploads.run(tools) == 1
    assert blobs.get(upload_key(1, stays)) == BODY
    with pytest.raises(BlobMissing):
        blobs.get(upload_key(1, goes))
    assert uploads.run(tools) == 0, "it is not tried again at once"
    assert uploads.run(replace(tools, blobs=blobs)) == 1


def test_no_sweep_waits_for_a_blob_store_that_hangs(
    engine: store.Engine, blobs: Directory, system: Local, tmp_path: Path
) -> None:
    hung, opened = threading.Event(), threading.Event()

    class Hanging(Directory):
        def delete_prefix(self, prefix: str) -> None:
            hung.set()
            opened.wait()

    made(engine, blobs)
    aged(engine, 10_000)
    client = redis.Redis.from_url(system.ps()["valkey"]["url"] + "?db=8")
    client.flushdb()
    tools = Tools(Settings(), engine, client, Hanging(tmp_path, b""))
    working = threading.Thread(target=work, args=[tools])
    working.start()
    try:
        assert hung.wait(30)
        submit(engine)
        with engine.begin() as connection:
            connection.execute(text("UPDATE jobs SET sent_at = now() - interval '1 minute'"))
        wait_until(lambda: bool(client.llen(QUEUE.name)), "it is sent again")
    finally:
        tools.stopped.set()
        opened.set()
        working.join()
        client.close()


def test_a_blob_whose_directory_cannot_be_used_is_to_be_asked_for_again(
    serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    root = tmp_path / "blobs"
    with serve(secret="s", blob_url=f"file://{root}") as client:
        blobs = open_blobs(Settings(secret="s", blob_url=f"file://{root}"))
        blobs.put("1/a/b", BODY, "text/plain")
        url = blobs.get_url("1/a/b", "text/plain")
        assert client.get(url).content == BODY
        blobs.delete_prefix("1/a/")
        assert client.get(url).status_code == 404
        root.rename(tmp_path / "away")
        root.symlink_to(root)
        refused = client.get(url)
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "unavailable", "2")


def test_a_blob_whose_directory_does_not_answer_is_waited_for_no_longer_than_others(
    serve: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.patience.PATIENCE", 0.1)
    answers = threading.Event()
    with serve(secret="s", blob_url=f"file://{tmp_path}") as client:
        url = open_blobs(Settings(secret="s", blob_url=f"file://{tmp_path}")).get_url("1/a/b", "text/plain")
        monkeypatch.setattr(Directory, "open_signed", lambda *_: answers.wait(10))
        assert client.get(url).status_code == 503
        assert not answers.is_set()
        answers.set()
