"""No figure counts where a commit may be lost."""

import asyncio
from collections.abc import Callable
from typing import Any

from tundish import store

WANTED = ("fsync", "synchronous_commit", "full_page_writes")


def check(execute: Callable[[str], Any]) -> None:
    """Raises RuntimeError where Postgres may lose what it has acknowledged to the session that executes: each may have
    settings of its own."""
    for name in WANTED:
        row = execute(f"SHOW {name}").fetchone()
        if row is None or row[0] != "on":
            raise RuntimeError(f"{name} is not on: the figure would not count")


def check_ours(url: str) -> None:
    """The same for the sessions of workers and of the API."""
    engine = store.engine(url, by_ids=True, autocommit=True)
    try:
        with engine.connect() as connection:
            check(connection.exec_driver_sql)
    finally:
        engine.dispose()
    asyncio.run(_check_api(url))


async def _check_api(url: str) -> None:
    engine = store.async_engine(url, by_ids=True)
    try:
        await store.run(engine, lambda connection: check(connection.exec_driver_sql))
    finally:
        await engine.dispose()
