"""The chores' tools, with blobs in a directory and in S3, and one model, `echo`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.integration.batches.steps import ECHO
from tests.local import Local
from tests.models import Echo
from tests.s3 import ENVIRONMENT, Server
from tundish import store
from tundish.blobs import Blobs, Directory, open_blobs
from tundish.catalog import Served, describe
from tundish.settings import Settings
from workers.chores import Tools


@pytest.fixture(params=["directory", "S3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Blobs]:
    if request.param == "directory":
        yield Directory(tmp_path, b"")
        return
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path)
    yield open_blobs(Settings(blob_url="s3://bucket/prefix", s3_endpoint_url=server.url))
    server.kill()


@pytest.fixture
def tools(engine: store.Engine, system: Local, blobs: Blobs) -> Iterator[Tools]:
    with engine.begin() as connection:
        store.register(connection, [describe(Served(Echo))])
    with redis.Redis.from_url(system.ps()["valkey"]["url"] + "?db=5") as client:
        client.delete(ECHO.name)
        yield Tools(Settings(), engine, client, blobs)
