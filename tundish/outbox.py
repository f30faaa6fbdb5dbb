"""The outbox: a move's webhooks are written in the transaction of the move, so that no caller can forget them.

Whoever calls this holds that transaction. Ids and bodies are frozen here. A job's own webhook gets its end, signed with
the tenant's default secret; registered endpoints get the events that they asked for.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from tundish import store
from tundish.batchview import lasting_view
from tundish.ids import new_uuid
from tundish.job import Status
from tundish.view import encode, event_of, webhook_body

Subject = tuple[UUID, int]

#: Jobs that are read in one statement. Where its plan nests a loop in a loop, ten times as many take a hundred times as
#: long, and a sweep that runs into its time-out comes upon the same jobs again and again.
PAGE = 1000


class Event(NamedTuple):
    """Something that is told once to whoever asked: to `url`, where the job or batch came with one, and to the tenant's
    endpoints that subscribed to `type`."""

    tenant: int
    type: str
    body: bytes
    job: UUID | None = None
    batch: UUID | None = None
    url: str | None = None


def announce(
    connection: store.Connection,
    ended: Collection[Subject],
    public_url: str,
    urls: Mapping[UUID, str] | None = None,
) -> set[int]:
    """Tell of the ends of jobs (id, tenant). `urls` are the jobs' own webhooks, where the caller knows them. The answer
    are the tenants that have an enabled endpoint, whatever it subscribed to."""
    if not ended:
        return set()
    endpoints = store.subscribed(connection, {tenant for _, tenant in ended})
    tenants = {each.tenant for each in endpoints}
    if urls is None:
        urls = store.webhooks_of(connection, [id for id, _ in ended])
    told = [(id, tenant) for id, tenant in ended if id in urls or tenant in tenants]
    if told:
        tell(connection, [_event(job, public_url, urls.get(job.id)) for job in _telling(connection, told)], endpoints)
    return tenants


def announce_start(connection: store.Connection, started: Mapping[Subject, int], public_url: str) -> None:
    """Tell the endpoints that subscribed to `job.started`, of jobs and the attempt of each; no job's own webhook hears
    of it. A start is no end: it needs no transaction with the move, for a job whose worker dies here starts again. What
    has become of a job since, its end or another attempt, is told by who did it."""
    endpoints = store.subscribed(connection, {tenant for _, tenant in started})
    tenants = {each.tenant for each in endpoints if "job.started" in each.events}
    if told := [(id, tenant) for id, tenant in started if tenant in tenants]:
        runs = [job for job in _telling(connection, told) if _runs(job, started[job.id, job.tenant])]
        tell(connection, [_event(job, public_url, None) for job in runs], endpoints)


def _runs(job: store.JobRow, attempt: int) -> bool:
    return job.status is Status.RUNNING and job.attempt == attempt


def tell(connection: store.Connection, events: Sequence[Event], endpoints: Sequence[store.Endpoint]) -> None:
    """Queue the deliveries of events, to their own URLs and to those of `endpoints` that want them. Their ids go by the
    database's clock: of a host's that is wrong one might lie in no day, or where the courier does not look yet."""
    wanted: list[tuple[Event, str, UUID, UUID | None]] = []
    wanted += [(event, event.url, lane(event.tenant, event.url), None) for event in events if event.url]
    for each in endpoints:
        heard = [event for event in events if event.tenant == each.tenant and event.type in each.events]
        wanted += [(event, each.url, each.id, each.id) for event in heard]
    if wanted:
        at = store.clock(connection)
        store.deliver(connection, [_delivery(at, *each) for each in wanted])


@lru_cache(maxsize=1024)
def lane(tenant: int, url: str) -> UUID:
    """The lane of a URL that no endpoint is registered for: that of its tenant and origin."""
    origin = "/".join(re.split("[/?#]", url, maxsplit=3)[:3]).lower()
    return UUID(bytes=hashlib.blake2b(f"{tenant} {origin}".encode(), digest_size=16).digest())


def _telling(connection: store.Connection, told: Sequence[Subject]) -> Iterator[store.JobRow]:
    """Jobs of a batch file send nothing of their own, their batch does; of shadows nobody hears."""
    for at in range(0, len(told), PAGE):
        for job in store.read(connection, told[at : at + PAGE]).values():
            if job.batch is None and job.shadow_of is None:
                yield job


def _event(job: store.JobRow, public_url: str, url: str | None) -> Event:
    return Event(job.tenant, event_of(job), webhook_body(job, public_url), job=job.id, url=url)


def _delivery(at: datetime, event: Event, url: str, lane: UUID, endpoint: UUID | None) -> store.Delivery:
    id = new_uuid(at)
    return store.Delivery(id, event.tenant, lane, event.type, url, event.body, endpoint, event.job, event.batch)


def announce_batch(connection: store.Connection, batch: store.BatchRow, public_url: str) -> None:
    """Queue the webhooks of a batch that has ended: its own, and those of endpoints; its jobs send none."""
    type, data = f"batch.{batch.status}", lasting_view(batch, public_url)
    body = encode({"type": type, "timestamp": data.finished_at, "data": data})
    event = Event(batch.tenant, type, body, batch=batch.id, url=batch.webhook)
    tell(connection, [event], store.subscribed(connection, {batch.tenant}))
