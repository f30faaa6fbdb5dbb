"""A terminal move's webhooks: written in the transaction of the move, so that no caller can forget them."""

from collections.abc import Sequence
from uuid import UUID

from tundish import store
from tundish.ids import new_uuid
from tundish.view import webhook_body


def announce(connection: store.Connection, ended: Sequence[tuple[UUID, int]], public_url: str) -> None:
    """Queue the webhook of each ended job (id, tenant) that has one. Its id and body are frozen here."""
    if not ended:
        return
    urls = store.webhooks_of(connection, [id for id, _ in ended])
    if not urls:
        return
    jobs = store.read(connection, [pair for pair in ended if pair[0] in urls])
    store.deliver(
        connection,
        [
            store.Delivery(
                new_uuid(), job.id, f"job.{job.status.name.lower()}", urls[job.id], webhook_body(job, public_url)
            )
            for job in jobs.values()
        ],
    )
