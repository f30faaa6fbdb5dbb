"""Batches: each that is due gets a turn: its lines are counted, expanded, looked at, and at last collected."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tundish import store
from tundish.batchfile import Status
from tundish.blobs import BlobUnavailable
from tundish.ids import to_text
from tundish.lineup import Lineup
from workers.chores import Tools
from workers.collect import Stopped, collect
from workers.expand import begin, expand
from workers.notify import notify

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


class _Mine(threading.local):
    """What each thread that works on batches keeps for itself: schemas are compiled once."""

    def __init__(self) -> None:
        self.lineup = Lineup()


_mine = _Mine()


def run(tools: Tools) -> int:
    """Turns, until none is due; how many lines they moved on."""
    lines = 0
    while not tools.stopped.is_set() and (batch := _take(tools)):
        said = {"batch": to_text("bat", batch.id)}
        try:
            with _held(tools, batch):
                moved, again_in = _turn(tools, batch)
            tools.patience.given(batch.id)
        except BlobUnavailable as error:
            log.warning("a batch has to wait: %s", error, extra=said)
            moved, again_in = 0, AGAIN
        except Stopped:
            moved, again_in = 0, 0.0
        except store.StoreError:
            raise
        except Exception:  # a full disk, or a bug: no other batch waits for this one, and no sweep
            log.exception("a batch broke, and is tried again", extra=said)
            moved, again_in = 0, BROKEN
        with tools.engine.begin() as connection:
            store.postpone_batch(connection, batch.id, again_in)
        lines += moved
    return lines


def _take(tools: Tools) -> store.BatchRow | None:
    with tools.engine.begin() as connection:
        return store.take_batch(connection, lease=tools.settings.lease)


@contextmanager
def _held(tools: Tools, batch: store.BatchRow) -> Iterator[None]:
    """Nobody else takes the batch during the block, however long a file takes."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(tools.settings.lease / 3):
            try:
                with tools.engine.begin() as connection:
                    store.postpone_batch(connection, batch.id, tools.settings.lease)
            except store.StoreError as error:
                log.warning("a batch may be taken by another: %s", error, extra={"batch": to_text("bat", batch.id)})

    holding = threading.Thread(target=renew, name="hold", daemon=True)
    holding.start()
    try:
        yield
    finally:
        over.set()
        holding.join()


def _turn(tools: Tools, batch: store.BatchRow) -> tuple[int, float]:
    """How many lines it moved on, and in how many seconds it is due again unless it has ended."""
    began = time.monotonic()
    if batch.cancel_requested or batch.fault is not None:
        _cancel(tools, batch)
    with tools.engine.begin() as connection:
        counts = store.count_lines(connection, batch)
    if not batch.expanded:
        _expand(tools, batch)
        return 1, 0.0
    if counts.queued or counts.running:
        return 0, LOOK + REST * (time.monotonic() - began)
    collect(tools, batch)
    return batch.total, 0.0


def _expand(tools: Tools, batch: store.BatchRow) -> None:
    if batch.status is Status.VALIDATING:
        begin(tools, batch)
        return
    with tools.engine.begin() as connection:
        _mine.lineup.update(store.catalog(connection, tools.settings.lease))
    expand(tools, _mine.lineup, batch, TURN)


def _cancel(tools: Tools, batch: store.BatchRow) -> None:
    """What waits ends at once, what runs is asked to."""
    full = True
    while full:
        with tools.engine.begin() as connection:
            asked = store.cancel_lines(connection, batch, limit=PAGE)
        notify(tools.client, asked, webhooks=False)  # the batch alone sends some
        full = len(asked) == PAGE
