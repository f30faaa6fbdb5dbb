"""Endpoints and webhooks for tests against a real Postgres."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.integration.stored import claim
from tundish import store
from tundish.blobs import Directory
from tundish.codec import codec_for
from tundish.ids import new_uuid
from tundish.outcome import Outcome
from workers import record as recording
from workers.batch import Target
from workers.claim import Claim
from workers.predict import Prediction

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENDS = ["job.succeeded", "job.failed", "job.canceled"]
FIRST_LANE = UUID(int=0)


def endpoint(engine: store.Engine, events: Sequence[str] = ENDS, tenant: int = 1) -> store.Endpoint:
    new = store.Endpoint(new_uuid(), tenant, "https://example.com/hook", list(events))
    with engine.begin() as connection:
        assert store.add_endpoint(connection, new, SECRET, most=100)
    return new


def finish(engine: store.Engine, ids: Sequence[UUID], folder: Path, outcome: Outcome) -> recording.Recorded:
    id, jobs = claim(engine, ids)
    prediction = Prediction(Claim(id, Target("m", "1"), jobs), 1.0, [outcome] * len(jobs), codec_for(str))
    blobs = Directory(folder, b"secret")
    with closing(store.Kept(store.autocommit(engine))) as kept:
        finished = recording.finish([prediction], blobs, inline_max=100)
        return recording.record(kept, engine, [prediction], finished, public_url="")


def rows(engine: store.Engine, columns: str = "job, endpoint, event") -> list[tuple[Any, ...]]:
    with engine.begin() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM deliveries ORDER BY id"))]


def deliver(engine: store.Engine, lane: UUID, count: int = 1, body: bytes = b"{}", **given: Any) -> list[UUID]:
    new = [store.Delivery(new_uuid(), 1, lane, "ping", "https://example.com/", body, **given) for _ in range(count)]
    with engine.begin() as connection:
        store.deliver(connection, new)
    return [each.id for each in new]


def take(engine: store.Engine, *, retried: bool = False, **given: Any) -> list[store.Due]:
    rooms: dict[str, Any] = {"quick": {}, "quick_limit": 100, "others": {}, "unknown": 16, "others_limit": 100}
    with engine.begin() as connection:
        return store.take(connection, retried=retried, lease=30.0, **{"after": FIRST_LANE, **rooms, **given}).due


def settle(engine: store.Engine, due: store.Due, status: str, again_in: float | None = None) -> None:
    attempt = json.dumps({"at": "now", "status_code": 500, "error": None, "ms": 1})
    with engine.begin() as connection:
        store.settle(connection, [store.Settled(due.id, due.tries, due.give_up_at, attempt, status, again_in)])


def make_due(engine: store.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE deliveries SET next_at = now() WHERE status = 'pending'"))
