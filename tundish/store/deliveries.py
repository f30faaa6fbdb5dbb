"""The outbox: webhooks that wait for the courier."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.store.arrays import Rows
from tundish.store.connect import span


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook to send for a job's end; `body` never changes after."""

    id: UUID
    job: UUID
    event: str
    url: str
    body: bytes


_DELIVERIES = Rows({"id": "uuid", "job": "uuid", "event": "text", "url": "text", "body": "bytea"})
_DELIVER = text(f"""
    INSERT INTO deliveries (id, tenant, job, event, url, body)
    SELECT given.id, j.tenant, given.job, given.event, given.url, given.body
    FROM {_DELIVERIES.sql} JOIN jobs j ON j.id = given.job AND j.id = ANY(:job)
""")


def deliver(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    """Queue webhooks, in the transaction of the move that they tell of."""
    if deliveries:
        connection.execute(_DELIVER, _DELIVERIES.given(deliveries))


def webhooks_of(connection: Connection, jobs: Sequence[UUID]) -> dict[UUID, str]:
    """The webhook URL of each job that has one; a shadow is never told of."""
    rows = connection.execute(
        text("""
            SELECT id, webhook FROM requests
            WHERE id = ANY(:ids) AND id BETWEEN :low AND :high AND webhook <> '' AND shadow_of IS NULL
        """),
        span(jobs),
    )
    return {row.id: row.webhook for row in rows}


class Due(NamedTuple):
    """A webhook to send now, under the `attempt`th try (from 1), signed with the tenant's `secret`."""

    id: UUID
    url: str
    body: bytes
    attempt: int
    secret: str


def due(connection: Connection, *, lease: float, limit: int) -> list[Due]:
    """Take webhooks whose time has come. Whoever does not settle them within `lease` seconds has died: they are due
    again."""
    rows = connection.execute(
        text("""
            WITH taken AS (
                SELECT id FROM deliveries WHERE status = 'pending' AND next_at <= now()
                ORDER BY next_at LIMIT :limit FOR UPDATE SKIP LOCKED
            )
            UPDATE deliveries d SET next_at = now() + :lease * interval '1 second'
            FROM taken, tenants t WHERE d.id = taken.id AND t.id = d.tenant
            RETURNING d.id, d.url, d.body, json_array_length(d.attempts) + 1, t.webhook_secret
        """),
        {"lease": lease, "limit": limit},
    )
    return [Due(*row) for row in rows]


def settle(
    connection: Connection, id: UUID, attempt: dict[str, Any], status: str, again_in: float | None = None
) -> None:
    """Write down one try ({"at", "status_code", "error", "ms"}) and what becomes of the webhook: `delivered`, `dead`,
    or `pending` and due `again_in` seconds."""
    connection.execute(
        text("""
            UPDATE deliveries SET status = :status, next_at = now() + :again_in * interval '1 second',
                   attempts = (attempts::jsonb || CAST(:attempt AS jsonb))::json
            WHERE id = :id AND status = 'pending'
        """),
        {"id": id, "attempt": json.dumps([attempt]), "status": status, "again_in": again_in},
    )
