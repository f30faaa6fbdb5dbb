"""The outbox: webhooks that wait for the courier, and the log of what became of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.store.arrays import Rows
from tundish.store.connect import span

#: What waits for its first try, and what is tried again: each has an index of its own, and no other tells what waits.
FRESH, RETRIED = "status = 'pending' AND NOT retried", "status = 'pending' AND retried"

#: How long one may wait for its turn, or be tried, before it is a dead letter; the table says so of a new one.
LIFE = timedelta(days=4)

#: Rows, and bytes of bodies, that one insert takes at most: no statement may take long.
_PAGE_ROWS, _PAGE_BYTES = 2000, 4_000_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook to send; `id` goes by the database's clock, and `body` never changes after. Those of one `lane` share a
    receiver, and so a cap and a breaker. `endpoint` is None for a URL that a job or batch came with; `job` and `batch`
    say what it tells of."""

    id: UUID
    tenant: int
    lane: UUID
    event: str
    url: str
    body: bytes
    endpoint: UUID | None = None
    job: UUID | None = None
    batch: UUID | None = None


_DELIVERIES = Rows(
    {
        "id": "uuid",
        "tenant": "int4",
        "lane": "uuid",
        "event": "text",
        "url": "text",
        "body": "bytea",
        "endpoint": "uuid",
        "job": "uuid",
        "batch": "uuid",
    }
)
_DELIVER = text(f"INSERT INTO deliveries ({_DELIVERIES.names}) SELECT * FROM {_DELIVERIES.sql}")


def deliver(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    """Queue webhooks, in the transaction of the move that they tell of."""
    for page in _pages(deliveries):
        connection.execute(_DELIVER, _DELIVERIES.given(page))


def _pages(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    page: list[Delivery] = []
    size = 0
    for each in deliveries:
        page.append(each)
        size += len(each.body)
        if len(page) == _PAGE_ROWS or size > _PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


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


class DeliveryRow(NamedTuple):
    """A line of the log. `attempts` are {"at", "status_code", "error", "ms"}; `status` is pending, delivered or
    dead."""

    id: UUID
    endpoint: UUID | None
    job: UUID | None
    batch: UUID | None
    event: str
    status: str
    attempts: list[dict[str, Any]]
    next_at: datetime | None


_ROW = ", ".join(DeliveryRow._fields)


@dataclass(frozen=True, slots=True)
class DeliverySearch:
    """Deliveries with `since <= id < before` that fit what is not None."""

    before: UUID
    since: UUID
    limit: int = 20
    status: str | None = None
    endpoint: UUID | None = None
    job: UUID | None = None
    batch: UUID | None = None


class DeliveryListing(NamedTuple):
    deliveries: list[DeliveryRow]
    next_before: UUID | None  # where the next page begins; None after the last


_WINDOW = "FROM deliveries WHERE tenant = :tenant AND id < :before AND id >= :since"
_LIST = f"SELECT {_ROW} {_WINDOW} {{fits}} ORDER BY id DESC LIMIT :limit + 1"
_SCAN_END = text(f"SELECT id {_WINDOW} ORDER BY id DESC OFFSET :budget - 1 LIMIT 1")


def list_deliveries(connection: Connection, tenant: int, search: DeliverySearch, budget: int = 2000) -> DeliveryListing:
    """What fits, newest first. Dead letters and those of one job have an index; else at most `budget` rows are looked
    at, so that a page may be short and still have a next one."""
    given = {name: getattr(search, name) for name in DeliverySearch.__dataclass_fields__}
    given |= {"tenant": tenant, "budget": budget}
    asked = [name for name in ("status", "endpoint", "job", "batch") if given[name] is not None]
    # Written out, so that a generic plan sees the partial index.
    fits = "".join(" AND status = 'dead'" if given[name] == "dead" else f" AND {name} = :{name}" for name in asked)
    indexed = search.job is not None or search.status == "dead"
    end: UUID | None = None
    if not indexed:  # first, so that what comes or goes meanwhile puts none on two pages, or on none
        end = connection.execute(_SCAN_END, given).scalar()
    rows = connection.execute(text(_LIST.format(fits=fits)), {**given, "since": end or search.since}).all()
    found = [DeliveryRow(*row) for row in rows[: search.limit]]
    return DeliveryListing(found, found[-1].id if len(rows) > search.limit else end)


def delivery(connection: Connection, tenant: int, id: UUID) -> DeliveryRow | None:
    row = connection.execute(
        text(f"SELECT {_ROW} FROM deliveries WHERE id = :id AND tenant = :tenant"), {"id": id, "tenant": tenant}
    ).one_or_none()
    return None if row is None else DeliveryRow(*row)


def replay(connection: Connection, tenant: int, id: UUID, *, since: UUID) -> DeliveryRow | None:
    """Send a delivery again, with its id and body, under a schedule that begins anew. It goes behind no fresh one: it
    lies with those that are tried again. None where there is none, or where it is settled and its job was deleted:
    rows of jobs with ids from `since` on go in no other way, and whose are older may have come of age."""
    row = connection.execute(
        text(f"""
            UPDATE deliveries SET status = 'pending', retried = true, tries = 0, next_at = now(),
                   give_up_at = now() + :life
            WHERE id = :id AND tenant = :tenant
                  AND (status = 'pending' OR job IS NULL OR job < :since
                       OR EXISTS (SELECT FROM jobs j WHERE j.id = job AND j.id >= :since))
            RETURNING {_ROW}
        """),
        {"id": id, "tenant": tenant, "life": LIFE, "since": since},
    ).one_or_none()
    return None if row is None else DeliveryRow(*row)


def forget_deliveries(connection: Connection, below: UUID, *, limit: int = 1000) -> int:
    """Delete a page of what is settled, with ids under `below`."""
    return connection.execute(
        text("""
            DELETE FROM deliveries WHERE id < :below AND id IN (
                SELECT id FROM deliveries WHERE id < :below AND status <> 'pending' ORDER BY id LIMIT :limit)
        """),
        {"below": below, "limit": limit},
    ).rowcount
