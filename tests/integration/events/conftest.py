"""A Valkey database that a test may flush, and the settings of an API that goes by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.local import Local
from tundish.settings import Settings
from workers import connect


@pytest.fixture
def redis_url(system: Local) -> str:
    """A database of its own, so that a test may flush it."""
    url: str = system.ps()["valkey"]["url"]
    return f"{url}?db=7"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect.redis_client(redis_url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url, redis_url=redis_url, blob_url=f"file://{tmp_path}")
