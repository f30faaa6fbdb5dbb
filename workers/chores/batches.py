"""Batches: each that is due gets a turn: its lines are counted, expanded, looked at, and at last collected."""

import logging
import time

from tundish import store
from tundish.batchfile import Status
from tundish.blobs import BlobUnavailable
from tundish.ids import to_text
from tundish.lineup import Lineup
from workers.chores import Tools
from workers.collect import Stopped, collect
from workers.expand import begin, expand

EVERY = 0.5

#: Seconds that one batch may be expanded while others wait.
TURN = 2.0
#: Seconds between two looks at a batch, and how often the time of a look on top of them: a look reads all its lines.
LOOK, REST = 1.0, 3.0
#: Seconds after which a batch whose files could not be read or written is due again.
AGAIN = 5.0
#: Seconds after which one that broke is due again.
BROKEN = 60.0
#: Jobs that are cancelled in one transaction.
PAGE = 2000

log = logging.getLogger(__name__)


def run(tools: Tools) -> int:
    """Turns, until a batch moved or none is due."""
    while batch := _take(tools):
        try:
            moved = _turn(tools, batch)
        except BlobUnavailable as error:
            log.warning("a batch has to wait: %s", error, extra={"batch": to_text("bat", batch.id)})
            _postpone(tools, batch, AGAIN)
        except Stopped:
            _postpone(tools, batch, 0.0)
            return 0
        except store.StoreError:
            raise
        except Exception:  # a full disk, or a bug: no other batch waits for this one, and no sweep
            log.exception("a batch broke, and is tried again", extra={"batch": to_text("bat", batch.id)})
            _postpone(tools, batch, BROKEN)
        else:
            if moved:
                return moved
    return 0


def _take(tools: Tools) -> store.BatchRow | None:
    with tools.engine.begin() as connection:
        return store.take_batch(connection, lease=tools.settings.lease)


def _turn(tools: Tools, batch: store.BatchRow) -> int:
    """How many lines it moved on."""
    began = time.monotonic()
    if batch.cancel_requested or batch.fault is not None:
        _cancel(tools, batch)
    with tools.engine.begin() as connection:
        counts = store.count_lines(connection, batch)
    if not batch.expanded:
        _expand(tools, batch)
        return 1
    if counts.queued or counts.running:
        _postpone(tools, batch, LOOK + REST * (time.monotonic() - began))
        return 0
    collect(tools, batch)
    return batch.total


def _expand(tools: Tools, batch: store.BatchRow) -> None:
    if batch.status is Status.VALIDATING:
        begin(tools, batch)
    else:
        lineup = Lineup()
        with tools.engine.begin() as connection:
            lineup.update(store.catalog(connection, tools.settings.lease))
        expand(tools, lineup, batch, TURN)
    _postpone(tools, batch, 0.0)


def _cancel(tools: Tools, batch: store.BatchRow) -> None:
    """What waits ends at once, what runs is asked to."""
    while True:
        with tools.engine.begin() as connection:
            if len(store.cancel_lines(connection, batch, limit=PAGE)) < PAGE:
                return


def _postpone(tools: Tools, batch: store.BatchRow, seconds: float) -> None:
    with tools.engine.begin() as connection:
        store.postpone_batch(connection, batch.id, seconds)
