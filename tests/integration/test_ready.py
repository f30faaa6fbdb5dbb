"""Whether an API can take a submit, against a real Postgres."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import text

from api.health import Health
from api.parts import build
from tests.local import Local
from tundish import store
from tundish.settings import Settings


@pytest.mark.parametrize(
    ("ahead", "told"), [("1 minute", "ok"), ("2 minutes", "s behind that of"), ("-9 days", "s ahead of that of")]
)
def test_who_goes_by_another_time_than_postgres_is_not_ready(
    system: Local,
    database_url: str,
    engine: store.Engine,
    database_ahead: Callable[[str], None],
    ahead: str,
    told: str,
) -> None:
    database_ahead(ahead)
    if ahead == "-9 days":  # no chore has made this day yet
        with engine.begin() as connection:
            connection.execute(text(f"DROP TABLE jobs_{datetime.now(UTC):%Y%m%d}"))
    assert told in asyncio.run(asked(system, database_url))


def test_whose_postgres_takes_no_writes_is_not_ready(system: Local, database_url: str) -> None:
    """As one that became so, on a full disk, after the API had connected."""

    def demote(connection: store.Connection) -> None:
        connection.execute(text("SELECT set_config('default_transaction_read_only', 'on', false)"))

    assert "takes no writes" in asyncio.run(asked(system, database_url, demote))


def test_whose_commits_do_not_wait_for_the_disk_is_not_ready(system: Local, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit TO off")
    assert asyncio.run(asked(system, database_url)).startswith("synchronous_commit is off")


@pytest.mark.parametrize(("revision", "told"), [("0009", "at revision 0009"), ("9999", "ok")])
def test_who_finds_an_older_schema_is_not_ready_and_who_finds_a_later_one_is(
    system: Local, database_url: str, engine: store.Engine, revision: str, told: str
) -> None:
    """Migrations only add: the API of the release before goes on, and comes back where the new one is taken back."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    assert told in asyncio.run(asked(system, database_url))


async def asked(
    system: Local, database_url: str, before: Callable[[store.Connection], None] = lambda connection: None
) -> str:
    """What an API tells of its database, after something was done over its connection."""
    settings = Settings(
        database_url=database_url, redis_url=system.ps()["valkey"]["url"], blob_url="file:///nowhere", api_key="key"
    )
    parts = build(settings)
    try:
        await parts.run(before)
        return await Health(parts)._database()
    finally:
        await parts.readers.dispose()
