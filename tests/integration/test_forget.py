"""What the chore forgets: workers that have not been seen for a day, and answers of idempotency keys."""

import pytest
from sqlalchemy import text

from tundish import store
from tundish.ids import new_uuid
from tundish.settings import Settings
from workers.chores import Tools, forget

HOUR = 3600.0
DAY = 24 * HOUR


def forgotten(engine: store.Engine, retention: float) -> int:
    return forget.run(Tools(Settings(retention=retention), engine, None, None))  # type: ignore[arg-type]  # it needs no more


def test_a_worker_is_kept_for_a_day_with_what_it_measured(engine: store.Engine) -> None:
    new, old = (store.Worker(new_uuid(), "default", "cpu", "host", 1, [], "lost", job_ms=3.5) for _ in range(2))
    with engine.begin() as connection:
        for worker, ago in ((new, "23 hours"), (old, "25 hours")):
            store.see_worker(connection, worker)
            connection.execute(
                text("UPDATE workers SET seen_at = now() - CAST(:ago AS interval) WHERE id = :id"),
                {"ago": ago, "id": worker.id},
            )
    assert forgotten(engine, DAY) == 0
    with engine.begin() as connection:
        assert [(each.id, each.job_ms) for each in store.workers(connection, seen_within=7 * DAY)] == [(new.id, 3.5)]


@pytest.mark.parametrize(("retention", "left"), [(HOUR, ["22", "23"]), (3 * DAY, ["22", "23", "25", "71"])])
def test_an_answer_is_kept_for_a_day_and_as_long_as_jobs_are(
    engine: store.Engine, retention: float, left: list[str]
) -> None:
    with engine.begin() as connection:
        for hours in ("22", "23", "25", "71", "73"):
            scope = store.Scope(1, "POST", "/v1/jobs", hours)
            assert store.submit_once(connection, scope, [], lambda at: store.Answer(b"", 202, None, b""))
            connection.execute(
                text("UPDATE idempotency SET created_at = now() - CAST(:ago AS interval) WHERE key = :key"),
                {"ago": f"{hours} hours", "key": hours},
            )
    assert forgotten(engine, retention) == 5 - len(left)
    with engine.begin() as connection:
        assert list(connection.execute(text("SELECT key FROM idempotency ORDER BY key")).scalars()) == left
