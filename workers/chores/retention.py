"""Retention: days that ended before TUNDISH_RETENTION are dropped as partitions, their blobs by prefix.

Reads honour the retention to the second; rows go with their whole day, without long transactions and without bloat.
Only where it is under a day are rows deleted too, in pages. Blobs go first, and rows once theirs are gone: what is in
the way leaves none behind.
"""

import logging
from datetime import datetime, timedelta

from tundish import store
from tundish.blobs import batch_prefix, day_prefix, job_prefix
from tundish.ids import floor_uuid, time_of
from workers.chores import Tools, survey
from workers.clear import clear

EVERY = 60.0
DAY = 86400.0
#: Batches that are deleted at once.
PAGE = 100
#: No row of a day is stored so long after its end.
SETTLED = survey.SETTLED

log = logging.getLogger(__name__)


def run(tools: Tools) -> int:
    with store.autocommit(tools.engine).connect() as connection, store.locked(connection, "retention") as held:
        if not held:
            return 0
        now = store.clock(connection)
        before = now - timedelta(seconds=tools.settings.retention)
        # A batch that has not ended will read its jobs once more.
        if oldest := store.oldest_batch(connection):
            before = min(before, time_of(oldest))
        _delete_batches(tools, connection, before)
        _drop_days(tools, connection, min(before, now - SETTLED))
        return _delete_rows(tools, connection, before) if tools.settings.retention < DAY else 0


def _delete_batches(tools: Tools, connection: store.Connection, before: datetime) -> None:
    for id, tenant in store.past_batches(connection, floor_uuid(before), limit=PAGE):
        if clear(tools, batch_prefix(tenant, id)):
            store.delete_batch(connection, id)


def _drop_days(tools: Tools, connection: store.Connection, before: datetime) -> None:
    for day in store.past_days(connection, before):
        if store.is_open(connection, day):
            log.warning("the day %s is past the retention and kept: a job of it runs, or a delivery is due", day)
            continue
        if all([clear(tools, day_prefix(tenant, day)) for tenant in store.tenants(connection)]):
            store.drop_day(connection, day)
            log.info("dropped the day %s", day)


def _delete_rows(tools: Tools, connection: store.Connection, before: datetime) -> int:
    old = store.past_retention(connection, floor_uuid(before))
    bare = [id for id, tenant in old if clear(tools, job_prefix(tenant, id))]
    if bare:
        store.delete_ended(connection, bare)
    return max(len(bare), store.forget_deliveries(connection, floor_uuid(before)))
