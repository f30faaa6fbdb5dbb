"""The days that jobs and deliveries lie in: a partition of each table a day."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from tundish.ids import floor_uuid
from tundish.store.deliveries import FRESH, RETRIED
from tundish.store.sweeps import clock, low_water

#: Tables partitioned by days of their ids: the three that hold a job, and the outbox.
PARTITIONED = ("jobs", "requests", "results", "deliveries")
DAYS_AHEAD = 7


def lock_release(connection: Connection) -> None:
    """Held by one release at a time, until its transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('tundish:release'))"))


def make_partitions(
    connection: Connection, days_ahead: int = DAYS_AHEAD, *, lag: timedelta = timedelta(days=1)
) -> None:
    """The partitions of the day that it was `lag` ago (an API's clock may lag over midnight) and on, to that in
    `days_ahead` days, by the database's clock."""
    now = clock(connection)
    first, last = now - lag, now + timedelta(days=days_ahead)
    existing = set(connection.execute(text("SELECT relname FROM pg_class WHERE relispartition")).scalars())
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    for day in (midnight + timedelta(days=offset) for offset in range((last - midnight).days + 1)):
        for table in PARTITIONED:
            name = f"{table}_{day:%Y%m%d}"
            if name in existing:
                continue
            # Room in each page for the HOT updates of claim and record (+21 % measured): three versions of a row.
            settings = "WITH (fillfactor = 42)" if table == "jobs" else ""
            bounds = f"FROM ('{floor_uuid(day)}') TO ('{floor_uuid(day + timedelta(days=1))}')"
            # Not PARTITION OF: that waits for whoever reads the parent, and all others wait behind it.
            connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL) {settings}"))
            connection.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {bounds}"))


def past_days(connection: Connection, before: datetime) -> list[str]:
    """The days (`20261124`), oldest first, that ended before a moment and still have a table, in or out of its
    parent."""
    rows = connection.execute(
        text("""
            SELECT DISTINCT right(relname, 8) FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname ~ :tables
            ORDER BY 1
        """),
        {"tables": f"^({'|'.join(PARTITIONED)})_[0-9]{{8}}$"},
    )
    last = before - timedelta(days=1)
    return [day for day in rows.scalars() if day <= f"{last:%Y%m%d}"]


def is_open(connection: Connection, day: str) -> bool:
    """Whether a job of a day has not ended, or a delivery is still due: nothing of that day may go."""
    unfinished_of = [("deliveries", FRESH), ("deliveries", RETRIED)]
    over = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
    # No index knows a status, and a day may have more jobs than a statement has time to read.
    if low_water(connection) < floor_uuid(over):
        unfinished_of.append(("jobs", "status < 2"))
    for table, unfinished in unfinished_of:
        name = f"{table}_{day}"
        if connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar() is not None:
            found = connection.execute(text(f"SELECT EXISTS (SELECT FROM {name} WHERE {unfinished})")).scalar()
            if found:
                return True
    return False


def drop_day(connection: Connection, day: str) -> None:
    """Detach and drop the tables of a day, on an AUTOCOMMIT connection: DETACH CONCURRENTLY blocks nobody, and is its
    own transaction. What a crash left half way is finished."""
    for table in PARTITIONED:
        name = f"{table}_{day}"
        pending = connection.execute(
            text("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass(:name)"), {"name": name}
        ).scalar()
        if pending is not None:
            how = "FINALIZE" if pending else "CONCURRENTLY"
            connection.execute(text(f"ALTER TABLE {table} DETACH PARTITION {name} {how}"))
        connection.execute(text(f"DROP TABLE IF EXISTS {name}"))


def missing_partitions(connection: Connection) -> list[str]:
    """The partitions of today and tomorrow, by this host's clock, that do not exist: without today's, none of its
    submits succeeds."""
    today = datetime.now(UTC)
    wanted = {f"{table}_{today + timedelta(days=offset):%Y%m%d}" for table in PARTITIONED for offset in (0, 1)}
    existing = set(connection.execute(text("SELECT relname FROM pg_class WHERE relispartition")).scalars())
    return sorted(wanted - existing)


def waits_for_disk(connection: Connection) -> bool:
    """Whether what is committed over this connection is on the disk then. A server whose `fsync` is off is not judged:
    some that keep their log elsewhere say so."""
    return bool(connection.execute(text("SHOW synchronous_commit")).scalar_one() != "off")


def takes_writes(connection: Connection) -> bool:
    """Whether Postgres does, over this connection: one on a full disk may be made to refuse them."""
    return bool(connection.execute(text("SHOW transaction_read_only")).scalar_one() == "off")


def revision(connection: Connection) -> str | None:
    """The migration that the database is at; None where none ever ran."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return None
    at: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return at
