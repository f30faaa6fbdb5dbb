"""kill -9 at each write boundary, one after the other, and at random ones between random actions."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.chaos import files, fuse
from tests.chaos.invariants import Observer, outcome
from tests.chaos.load import Load
from tests.chaos.rig import Rig
from tests.local import wait_until
from tundish.ids import floor_uuid, from_text

Times = Callable[[int], int]

#: Those of the courier have a test of their own, with a receiver.
BOUNDARIES = [each for each in fuse.BOUNDARIES if not each.startswith("workers.courier:")]

#: No courier runs here: the deliveries of these jobs wait in the outbox.
HOOK = "http://127.0.0.1:9/hook"


@pytest.fixture(scope="module")
def running_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    # Far more workers die here than a job would survive.
    given = {"TUNDISH_MAX_ATTEMPTS": "1000", "TUNDISH_OUTBOUND_ALLOW": "127.0.0.0/8"}
    rig = Rig(tmp_path_factory.mktemp("chaos-boundaries"), given, ["tests.chaos.fuse"])
    yield rig
    rig.close()


class Life:
    """What callers and operators do, so that each write happens."""

    def __init__(self, rig: Rig, load: Load, folder: Path) -> None:
        self.rig = rig
        self.load = load
        self.folder = folder
        self.excused: set[str] = set()
        self.hooked: set[str] = set()
        self.late: set[UUID] = set()
        self.files: list[files.File] = []
        self.burnt = 0
        (folder / "open").touch()
        self.by_write = {
            "amend_answer": self.wait_for_the_end,
            "replace_answer": self.wait_in_vain,
            "cancel": self.cancel,
            "deliver": self.cancel,
            "put": self.send_a_large_input,
            "register": self.kill_a_worker,
            "release": self.stop_a_worker,
            "overdue": self.take_too_long,
            "reap": self.kill_a_worker,
            "unsent": self.lose_messages,
            "push": self.lose_messages,
            "expire": self.let_expire,
            "survey": self.rig.parts["chores"].kill,  # a new one does all chores at once
            "bury": self.leave_a_webhook_for_days,
            **dict.fromkeys(
                ("new_batch_once", "take_batch", "begin_batch", "add_lines", "end_batch", "put_file"),
                self.send_a_file,
            ),
        }

    def burn(self, boundary: str) -> None:
        """Until a process has died at a boundary."""
        fuse = self.rig.fuse(boundary)
        fuse.touch()
        provoke = self.by_write.get(boundary.partition(":")[2].partition(".")[0], self.submit_with_webhook)
        until = time.monotonic() + 60
        while fuse.exists():
            assert time.monotonic() < until, f"nobody came to {boundary}"
            provoke()
            with suppress(AssertionError):
                wait_until(lambda: not fuse.exists(), boundary, 2)
        self.burnt += 1
        for gate in self.folder.glob("gate-*"):
            gate.rename(gate.with_name(gate.name[5:]))

    def submit_with_webhook(self) -> None:
        self.hooked.add(self.load.one(webhook=HOOK))

    def wait_for_the_end(self) -> None:
        self.load.one(prefer="wait=10")

    def wait_in_vain(self) -> None:
        self.load.one(prefer="wait=0")

    def send_a_large_input(self) -> None:
        self.load.one(do=str(self.folder / "open"))

    def send_a_file(self) -> None:
        self.files.append(files.send(self.rig, 30, webhook=HOOK))

    def cancel(self) -> None:
        id = self.load.one(webhook=HOOK)
        self.excused.add(id)
        self.hooked.add(id)
        with suppress(httpx.TransportError):
            self.rig.client.post(f"/v1/jobs/{id}/cancel")

    def take_too_long(self) -> None:
        name = f"{time.monotonic_ns()}"
        (self.folder / f"gate-{name}").touch()  # opened, by a new name, once the fuse is burnt
        self.excused.add(self.load.one(do=str(self.folder / name), timeout=0.5))

    def let_expire(self) -> None:
        self.rig.redis.cut("reset")
        self.excused.add(self.load.one(expires_in=1))
        self.rig.redis.heal()

    def lose_messages(self) -> None:
        self.rig.redis.cut("reset")
        self.load.submit(5)
        self.rig.redis.heal()

    def kill_a_worker(self) -> None:
        self.load.submit(30)
        self.rig.workers[self.burnt % 2].kill()

    def stop_a_worker(self) -> None:
        self.load.submit(100)
        self.rig.workers[self.burnt % 2].kill(signal.SIGTERM)

    def leave_a_webhook_for_days(self) -> None:
        long_ago = datetime.now(UTC) - timedelta(days=5)
        id = UUID(int=floor_uuid(long_ago).int + len(self.late))
        with psycopg.connect(self.rig.database_url) as database:
            bounds = f"FROM ('{UUID(int=0)}') TO ('{floor_uuid(long_ago + timedelta(hours=1))}')"
            database.execute(f"CREATE TABLE IF NOT EXISTS deliveries_old PARTITION OF deliveries FOR VALUES {bounds}")
            database.execute(
                "INSERT INTO deliveries (id, tenant, lane, event, url, body, next_at, give_up_at)"
                " VALUES (%(id)s, 1, %(id)s, 'ping', '', '', now(), now())",
                {"id": id},
            )
        self.late.add(id)
        self.rig.parts["chores"].kill()

    def buried(self) -> dict[UUID, int]:
        """How often each webhook that waited for days was given up."""
        with psycopg.connect(self.rig.database_url) as database:
            given_up = "SELECT id, json_array_length(attempts) FROM deliveries WHERE status = 'dead' AND id = ANY(%s)"
            return dict(database.execute(given_up, [list(self.late)]).fetchall())

    def deliveries(self) -> dict[str, int]:
        """How many webhooks were written for each job."""
        with psycopg.connect(self.rig.database_url) as database:
            return dict(database.execute("SELECT job::text, count(*) FROM deliveries GROUP BY job").fetchall())

    def wrong(self) -> list[str]:
        """Where a terminal move did not write its webhook once, or a line of a batch file has not come to its output.
        Waits until what waited for days is a dead letter, once."""
        wait_until(lambda: self.buried() == dict.fromkeys(self.late, 1), "what waited for days is buried", 120)
        of_files = [each for file in self.files for each in files.wrong(self.rig, file, hooked=True)]
        written = self.deliveries()
        counts = {id: written.get(str(from_text("job", id)), 0) for id in self.hooked}
        return of_files + [f"{count} webhooks of {id}" for id, count in counts.items() if count != 1]


def test_a_process_dies_at_each_write_boundary(
    rig: Rig, load: Load, observer: Observer, times: Times, tmp_path: Path
) -> None:
    life = Life(rig, load, tmp_path)
    with load.running(threads=2, pause=0.05):
        for boundary in BOUNDARIES * times(3):
            life.burn(boundary)
    assert outcome("kill -9 at each write boundary", load, observer, life.burnt, excused=life.excused).wrong == []
    assert life.wrong() == []


def test_processes_die_at_random_boundaries_between_random_actions(
    rig: Rig, load: Load, observer: Observer, times: Times, tmp_path: Path
) -> None:
    life = Life(rig, load, tmp_path)

    class Machine(RuleBasedStateMachine):
        @rule(count=st.integers(1, 40))
        def submit(self, count: int) -> None:
            load.submit(count)

        @rule(action=st.sampled_from(sorted(life.by_write)))
        def act(self, action: str) -> None:
            life.by_write[action]()

        @rule(boundary=st.sampled_from(BOUNDARIES))
        def burn(self, boundary: str) -> None:
            life.burn(boundary)

        @rule(name=st.sampled_from(sorted(rig.parts)))
        def kill(self, name: str) -> None:
            rig.parts[name].kill(signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
            life.burnt += 1

        @rule()
        def wipe_redis(self) -> None:
            rig.wipe_redis()
            rig.parts["valkey"].start()
            life.burnt += 1

    given = settings(
        max_examples=times(20),
        stateful_step_count=15,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with load.running(threads=2, pause=0.05):
        run_state_machine_as_test(seed(load.seed)(Machine), settings=given)
    assert outcome("random kills, random actions", load, observer, life.burnt, excused=life.excused).wrong == []
    assert life.wrong() == []


def test_a_worker_that_hears_nothing_is_started_anew(rig: Rig, load: Load, observer: Observer, times: Times) -> None:
    deaf, longest = times(10), 0.0
    for _ in range(deaf):
        before = [worker.pid for worker in rig.workers]
        for pid in before:
            rig.fuse(f"deaf-{pid}").touch()
        load.submit(20)  # what a worker had asked for before, it still gets
        began = time.monotonic()
        for id in load.submit(20):
            rig.wait_for_end(id)
        longest = max(longest, time.monotonic() - began)
        assert [worker.pid for worker in rig.workers] != before
    note = f"claims resumed in {longest:.1f} s at most"
    assert outcome("workers that hear nothing", load, observer, deaf, note=note).wrong == []
