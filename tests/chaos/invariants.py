"""The invariants of a run, checked from ledgers and by an observer outside the system.

I1 no acknowledged job is lost; I2 at most one completion of a job is accepted; I3 attempts only rise; I4 a terminal
state never changes.
"""

import threading
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg

from tests.chaos.load import Load
from tests.chaos.rig import Rig
from tests.local import wait_until
from tundish.ids import floor_uuid, to_text
from tundish.job import Status

_SEEN = """
    SELECT j.id::text, j.attempt, j.status, j.finished_at, r.attempt, md5(COALESCE(r.blob, encode(r.body, 'hex'), '')),
           md5(COALESCE(r.error, ''))
    FROM jobs j LEFT JOIN results r ON r.id = j.id AND r.id >= %(since)s WHERE j.id >= %(since)s
"""
_STATUS = "SELECT id, status FROM jobs WHERE id >= %(since)s"


class Observer:
    """Looks at all jobs of a scenario several times a second, and remembers what must not change."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._since = {"since": floor_uuid(datetime.now(UTC))}
        self._attempts: dict[str, int] = {}
        self._ends: dict[str, tuple[object, ...]] = {}
        self.broken: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Observer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def look(self) -> None:
        with self._database() as now:
            for id, attempt, status, *end in now.execute(_SEEN, self._since):
                if attempt < self._attempts.get(id, 0):
                    self.broken.add(f"I3 {id}: attempt {attempt} after {self._attempts[id]}")
                self._attempts[id] = attempt
                if id in self._ends and self._ends[id] != (status, *end):
                    self.broken.add(f"I4 {id}: {(status, *end)} after {self._ends[id]}")
                if status >= 2:
                    self._ends.setdefault(id, (status, *end))

    def statuses(self) -> dict[str, Status]:
        """Each job's status, by the id that callers know."""
        with self._database() as now:
            return {to_text("job", id): Status(status) for id, status in now.execute(_STATUS, self._since)}

    def _database(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(self._rig.database_url, connect_timeout=2, options="-c statement_timeout=5000")

    def _run(self) -> None:
        while not self._stopped.wait(0.3):
            try:
                self.look()
            except psycopg.Error:
                continue


@dataclass
class Row:
    """A line of the table at the end; `wrong` says in words what breaks an invariant."""

    scenario: str
    faults: int
    jobs: int
    lost: int
    twice: int
    stuck: int
    extra: int
    note: str = ""
    wrong: list[str] = field(default_factory=list)


#: The table, in the order of the run.
ROWS: list[Row] = []


def outcome(
    scenario: str,
    load: Load,
    observer: Observer,
    faults: int,
    *,
    failed: int = 0,
    excused: Container[str] = (),
    within: float = 120,
    note: str = "",
) -> Row:
    """Wait until all acknowledged jobs have ended, hold them against the ledgers, and add a line to the table, for the
    test to assert that nothing is wrong. `failed` jobs are meant to fail; those of `excused` may end as they like."""
    rig = load.rig
    accepted = {id: token for id, token in rig.accepted.lines() if id in load.jobs}
    statuses: dict[str, Status] = {}

    def all_ended() -> bool:
        with suppress(psycopg.OperationalError):  # it may be on its way back
            statuses.update(observer.statuses())
        return all(id in statuses and statuses[id].terminal for id in accepted)

    with suppress(AssertionError):  # what is stuck is counted
        wait_until(all_ended, "all jobs have ended", within)
    observer.look()
    found = {id: statuses[id] for id in accepted if id in statuses}
    stuck = [id for id, status in found.items() if not status.terminal]
    succeeded = [id for id, status in found.items() if status is Status.SUCCEEDED]
    with ThreadPoolExecutor(8) as pool:
        tokens_told = list(pool.map(lambda id: _token(rig, id), succeeded))
    wrong = [id for id, token in zip(succeeded, tokens_told, strict=True) if token != accepted[id]]
    unmeant = [id for id in found.keys() - set(succeeded) - set(stuck) if id not in excused]
    tokens = set(accepted.values())
    executed = {token: count for token, count in rig.tasks().items() if token in tokens}
    lost = [id for id in accepted if id not in found] + wrong
    row = Row(
        scenario,
        faults,
        jobs=len(accepted),
        lost=len(lost),
        twice=len(observer.broken),
        stuck=len(stuck),
        extra=sum(executed.values()) - len(executed),
        note=note,
    )
    ROWS.append(row)
    row.wrong += sorted(observer.broken)
    row.wrong += [f"{len(ids)} {what}: {ids[:3]}" for what, ids in (("lost", lost), ("stuck", stuck)) if ids]
    if len(unmeant) != failed:
        row.wrong.append(f"{len(unmeant)} failed where {failed} should: {unmeant[:3]}")
    return row


def _token(rig: Rig, id: str) -> object:
    """What a job's result tells, asked again as a careful caller does: where a kept connection was closed meanwhile, or
    the database has just come back."""

    def told() -> httpx.Response | None:
        with suppress(httpx.TransportError):
            answer = rig.client.get(f"/v1/jobs/{id}/result", follow_redirects=True)
            return None if answer.status_code == 503 else answer
        return None

    return wait_until(told, f"{id} tells its result").json().get("token")
