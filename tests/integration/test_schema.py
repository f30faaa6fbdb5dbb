"""The schema as migrations leave it, dumped to tests/schema.sql: each migration shows as a difference there."""

import os
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

import migrations
from tundish import store

DUMP = Path(__file__).parents[1] / "schema.sql"

_COLUMNS = text("""
    SELECT c.relname, a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
           || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
           || COALESCE(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '') AS line
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND c.relname <> 'alembic_version'
    ORDER BY c.relname, a.attnum
""")
_REST = text("""
    SELECT c.relname, line FROM pg_class c, LATERAL (
        SELECT pg_get_constraintdef(oid) AS line FROM pg_constraint WHERE conrelid = c.oid AND contype <> 'n'
        UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid AND NOT indisprimary
        UNION ALL SELECT pg_get_partkeydef(c.oid) WHERE c.relkind = 'p'
        UNION ALL SELECT unnest(c.reloptions)
    ) l
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND c.relname <> 'alembic_version'
    ORDER BY c.relname, line
""")


def dumped(engine: store.Engine) -> str:
    tables: dict[str, list[str]] = {}
    with engine.begin() as connection:
        for query in (_COLUMNS, _REST):
            for table, line in connection.execute(query):
                tables.setdefault(table, []).append(line)
    return "\n".join(f"{table}\n" + "".join(f"    {line}\n" for line in lines) for table, lines in tables.items())


def test_the_schema_is_the_one_in_the_file(engine: store.Engine) -> None:
    now = dumped(engine)
    if os.environ.get("UPDATE_SCHEMA"):
        DUMP.write_text(now)
    assert now == DUMP.read_text(), "run the tests once with UPDATE_SCHEMA=1 and look at the difference"


def test_a_release_runs_again_and_migrations_go_back(database_url: str, engine: store.Engine) -> None:
    before = dumped(engine)
    migrations.release(database_url)
    with engine.begin() as connection:
        assert store.revision(connection) == migrations.head()
        assert store.missing_partitions(connection) == []
    with engine.connect() as connection:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
    assert dumped(engine) == ""
    migrations.release(database_url)
    assert dumped(engine) == before


def test_a_release_leaves_a_database_of_a_later_one_as_it_is(database_url: str, engine: store.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    migrations.release(database_url)
    with engine.begin() as connection:
        assert store.revision(connection) == "9999"


def test_readiness_sees_a_missing_day(engine: store.Engine) -> None:
    with engine.begin() as connection:
        day = connection.execute(text("SELECT 'jobs_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")).scalar_one()
        connection.execute(text(f"DROP TABLE {day}"))
        assert store.missing_partitions(connection) == [day]
        store.make_partitions(connection)
        assert store.missing_partitions(connection) == []


@pytest.mark.parametrize("index", ["status", "claim", "attempt", "deaths", "sent_at", "finished_at"])
def test_no_index_holds_what_changes_on_the_hot_path(engine: store.Engine, index: str) -> None:
    with engine.begin() as connection:
        definitions = connection.execute(
            text("SELECT indexdef FROM pg_indexes WHERE tablename = 'jobs' OR tablename LIKE 'jobs\\_%'")
        ).scalars()
        columns = [line.rpartition("(")[2] for line in definitions]
    assert columns
    assert not [each for each in columns if index in each]
