"""A database of its own for each test, cloned from one that was migrated once; and a certificate."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis
from starlette.testclient import TestClient

from api.app import create
from migrations import release
from tests.local import LOCALHOST, Local
from tundish import outbound, store
from tundish.settings import Settings
from workers.connect import redis_client


def _url(system: Local, name: str) -> str:
    url: str = system.ps()["postgres"]["url"]
    return url.replace("/tundish?", f"/{name}?")


@pytest.fixture(scope="session")
def template(system: Local) -> str:
    """The name of a migrated database."""
    with psycopg.connect(_url(system, "postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE template_tundish")
    release(_url(system, "template_tundish"))
    return "template_tundish"


@pytest.fixture
def database_url(system: Local, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(_url(system, "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield _url(system, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def old_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs may be submitted under ids of long ago."""
    monkeypatch.setattr("tundish.store.jobs.ID_AGE", math.inf)


@pytest.fixture
def engine(database_url: str) -> Iterator[store.Engine]:
    engine = store.engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def kept(engine: store.Engine) -> Iterator[store.Kept]:
    with closing(store.Kept(store.autocommit(engine))) as kept:
        yield kept


@pytest.fixture
def emptied(system: Local) -> Iterator[redis.Redis]:
    """A Redis database of its own, with nothing in it."""
    with redis_client(system.ps()["valkey"]["url"] + "?db=7") as client:
        client.flushdb()
        yield client


@pytest.fixture
def serve(
    system: Local, database_url: str, engine: store.Engine, emptied: redis.Redis, tmp_path: Path
) -> Callable[..., TestClient]:
    """An API of its own with such settings, one model, `m`, and no worker."""
    with engine.begin() as connection:
        version = store.Version("m", "1", "default", "application/json", "application/json", None, None, 8, 0.0)
        store.register(connection, [version])
    redis_url = system.ps()["valkey"]["url"] + "?db=7"
    settings = Settings(database_url=database_url, redis_url=redis_url, blob_url=f"file://{tmp_path}")
    return lambda **given: TestClient(create(replace(settings, **given)))


@pytest.fixture
def database_ahead(database_url: str) -> Callable[[str], None]:
    """For connections from then on, the database's clock is so far ahead of that of this host."""

    def set_clock(interval: str) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            for clock in ("now", "statement_timestamp"):
                ahead = f"RETURN pg_catalog.{clock}() + interval '{interval}'"
                connection.execute(f"CREATE OR REPLACE FUNCTION public.{clock}() RETURNS timestamptz STABLE {ahead}")
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET search_path TO public, pg_catalog")

    return set_clock


@pytest.fixture
def slow_clock(database_ahead: Callable[[str], None]) -> None:
    """The database's clock is an hour behind that of this host."""
    database_ahead("-1 hour")


@pytest.fixture
def localhost_trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever asks for LOCALHOST's certificate gets one that the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST))
    outbound.trust.cache_clear()
    yield
    outbound.trust.cache_clear()
