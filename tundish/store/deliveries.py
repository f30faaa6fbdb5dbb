"""The outbox: webhooks that wait for the courier."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook to send for a job's end; `body` never changes after."""

    id: UUID
    job: UUID
    event: str
    url: str
    body: bytes


_DELIVER = text("""
    INSERT INTO deliveries (id, tenant, job, event, url, body)
    SELECT d.id, j.tenant, d.job, d.event, d.url, d.body
    FROM unnest(CAST(:id AS uuid[]), CAST(:job AS uuid[]), CAST(:event AS text[]), CAST(:url AS text[]),
                CAST(:body AS bytea[])) AS d(id, job, event, url, body)
         JOIN jobs j ON j.id = d.job
""")


def deliver(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    """Queue webhooks, in the transaction of the move that they tell of."""
    if deliveries:
        names = ("id", "job", "event", "url", "body")
        connection.execute(_DELIVER, {name: [getattr(one, name) for one in deliveries] for name in names})
