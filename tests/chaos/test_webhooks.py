"""I5: at least one webhook for each terminal event, with one id and one body, whatever happens to the courier."""

import hashlib
import signal
from collections.abc import Callable, Iterator
from itertools import cycle

import psycopg
import pytest

from tests.chaos import files, fuse
from tests.chaos.invariants import Observer, outcome
from tests.chaos.load import Load
from tests.chaos.rig import Rig
from tests.local import wait_until
from tests.receiver import Answer, Receiver, listening
from tundish.ids import to_text

Times = Callable[[int], int]

BOUNDARIES = [each for each in fuse.BOUNDARIES if each.startswith("workers.courier:")]
#: Of each delivery: its job or batch, its endpoint, and the digest of its body.
Sent = dict[str, tuple[str, str | None, str]]


@pytest.fixture(scope="module")
def running_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    given = {"TUNDISH_OUTBOUND_ALLOW": "127.0.0.0/8"}
    rig = Rig(tmp_path_factory.mktemp("chaos-webhooks"), given, ["tests.chaos.fuse"], courier=True)
    yield rig
    rig.close()


@pytest.fixture
def receiver(rig: Rig) -> Iterator[Receiver]:
    """It is registered for all ends."""
    with listening() as receiver:
        id = register(rig, receiver, "/all")
        yield receiver
        rig.client.delete(f"/v1/webhooks/{id}")


def register(rig: Rig, receiver: Receiver, path: str) -> str:
    """The id of an endpoint for all ends of jobs."""
    endpoint = {"url": receiver.url(path), "events": ["job.succeeded", "job.failed", "job.canceled"]}
    return str(rig.client.post("/v1/webhooks", json=endpoint).json()["id"])


def test_the_courier_dies_at_each_of_its_write_boundaries(
    rig: Rig, load: Load, observer: Observer, times: Times, receiver: Receiver
) -> None:
    hooked: list[str] = []
    batches: list[files.File] = []
    gone: list[str] = []
    boundaries = BOUNDARIES * times(50)
    receiver.answers["/gone"] = [Answer(410)]
    with load.running(threads=1, pause=0.2):
        for boundary in boundaries:
            rig.fuse(boundary).touch()
            if "disable_endpoints" in boundary:
                gone.append(register(rig, receiver, "/gone"))
            hooked += [load.one(webhook=receiver.url(path)) for path in ("/flaky", "/own")]
            batches.append(files.send(rig, 3, webhook=receiver.url("/own")))
            rig.wait_for_fuse(boundary)
    for batch in batches:
        assert files.wrong(rig, batch, hooked=True) == []
    note = hold_against_receiver(rig, load, receiver, [*hooked, *(batch.id for batch in batches)])
    for id in gone:
        assert not rig.client.get(f"/v1/webhooks/{id}").json()["enabled"]
        rig.client.delete(f"/v1/webhooks/{id}")
    assert outcome("the courier: kill -9 at each write", load, observer, len(boundaries), note=note).wrong == []


def test_the_courier_is_killed_and_stopped_under_load(
    rig: Rig, load: Load, observer: Observer, times: Times, receiver: Receiver
) -> None:
    hooked: list[str] = []
    faults, courier = times(50), rig.parts["courier"]
    kinds = cycle([signal.SIGKILL, signal.SIGTERM])
    with load.running(threads=2, pause=0.02):
        for _ in range(faults):
            receiver.came.clear()
            hooked += [load.one(webhook=receiver.url(path)) for path in ("/flaky", "/own")]
            assert receiver.came.wait(60)
            courier.kill(next(kinds))
    note = hold_against_receiver(rig, load, receiver, hooked)
    assert outcome("the courier: SIGKILL, SIGTERM", load, observer, faults, note=note).wrong == []


def hold_against_receiver(rig: Rig, load: Load, receiver: Receiver, hooked: list[str]) -> str:
    """Each end of a job came to the endpoint, and to the own webhook of the jobs and batches that are `hooked`, at
    least once, as it lies in the outbox."""
    for id in load.jobs:
        rig.wait_for_end(id)
    wait_until(lambda: not outbox(rig, "pending"), "nothing waits in the outbox", 180)
    sent = outbox(rig, "delivered")
    came: dict[str, list[str]] = {}
    while not receiver.received.empty():
        received = receiver.get()
        came.setdefault(received.headers["webhook-id"], []).append(hashlib.sha256(received.body).hexdigest())
    mine = {id: one for id, one in sent.items() if one[0] in {*load.jobs, *hooked}}
    told = [subject for subject, endpoint, _ in mine.values() if endpoint is not None]
    own = [subject for subject, endpoint, _ in mine.values() if endpoint is None]
    assert sorted(told) == sorted(load.jobs), "each end was written once for the endpoint"
    assert sorted(own) == sorted(hooked), "and once for the own webhook"
    assert {id: set(came.get(id, [])) for id in mine} == {id: {digest} for id, (_, _, digest) in mine.items()}
    extra = sum(len(came[id]) - 1 for id in mine)
    return f"{len(mine)} webhooks, {extra} came more than once"


def outbox(rig: Rig, status: str) -> Sent:
    with psycopg.connect(rig.database_url) as database:
        rows = database.execute(
            "SELECT id, job, batch, endpoint::text, encode(sha256(body), 'hex') FROM deliveries WHERE status = %s",
            [status],
        ).fetchall()
    return {
        to_text("whd", id): (to_text("bat", batch) if batch else to_text("job", job), endpoint, digest)
        for id, job, batch, endpoint, digest in rows
    }
