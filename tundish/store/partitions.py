"""The days that jobs live in."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from tundish.ids import floor_uuid

#: Tables that hold a job's parts, partitioned alike.
PARTITIONED = ("jobs", "requests", "results", "deliveries")
DAYS_AHEAD = 7


def release_lock(connection: Connection) -> None:
    """Held by one release at a time, until its transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('tundish:release'))"))


def make_partitions(connection: Connection, days_ahead: int = DAYS_AHEAD) -> None:
    """The partitions from yesterday (a client's clock may lag over midnight) to `days_ahead` days on."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    existing = set(connection.execute(text("SELECT relname FROM pg_class WHERE relispartition")).scalars())
    for day in (today + timedelta(days=offset) for offset in range(-1, days_ahead + 1)):
        for table in PARTITIONED:
            name = f"{table}_{day:%Y%m%d}"
            if name in existing:
                continue
            # Room in each page for the HOT updates of claim and record (+21 % measured): three versions of a row.
            settings = "WITH (fillfactor = 42)" if table == "jobs" else ""
            connection.execute(
                text(
                    f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES"
                    f" FROM ('{floor_uuid(day)}') TO ('{floor_uuid(day + timedelta(days=1))}') {settings}"
                )
            )


def missing_days(connection: Connection) -> list[str]:
    """The partitions of today and tomorrow that do not exist: without today's, no submit succeeds."""
    today = datetime.now(UTC)
    wanted = {f"{table}_{today + timedelta(days=offset):%Y%m%d}" for table in PARTITIONED for offset in (0, 1)}
    existing = set(connection.execute(text("SELECT relname FROM pg_class WHERE relispartition")).scalars())
    return sorted(wanted - existing)


def revision(connection: Connection) -> str | None:
    """The migration that the database is at; None where none ever ran."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return None
    at: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return at
