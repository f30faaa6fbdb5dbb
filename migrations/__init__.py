"""The database's schema, step by step, and the release that brings a database to the newest step."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from tundish import store


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def head() -> str:
    """The revision that this tree's code needs."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def release(database_url: str) -> None:
    """Migrate the database to `head` and make the partitions of the days to come. Safe to run again and at once
    in several processes: an advisory lock lets one after the other through. A database that a later release has
    migrated is left so: a step only adds to what there is."""
    engine = store.engine(database_url)
    with engine.connect() as connection:
        store.lock_release(connection)
        if (store.revision(connection) or "") < head():
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        store.make_partitions(connection)
        connection.commit()
    engine.dispose()
