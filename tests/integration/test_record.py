"""Recording against a real Postgres: what it does not take fails alone."""

import threading
from pathlib import Path
from typing import BinaryIO

from tests.integration.stored import claim, read, start, submit
from tundish import store
from tundish.blobs import BlobOversized, Blobs, Directory
from tundish.codec import codec_for
from tundish.file import File
from tundish.job import Status
from tundish.outcome import Done, Outcome
from workers.batch import Target
from workers.claim import Claim
from workers.predict import Prediction
from workers.record import Recorded, finish, record


def recorded(kept: store.Kept, engine: store.Engine, blobs: Blobs, ran: Prediction, inline_max: int = 8) -> Recorded:
    return record(kept, engine, [ran], finish([ran], blobs, inline_max=inline_max), public_url="")


def test_outputs_go_to_blobs_several_at_once(engine: store.Engine, kept: store.Kept, tmp_path: Path) -> None:
    both = threading.Barrier(2)

    class Slow(Directory):
        def put(self, key: str, body: bytes, content_type: str) -> None:
            both.wait(10)
            super().put(key, body, content_type)

    ids = submit(engine, 3)
    id, jobs = claim(engine, ids)
    prediction = Prediction(Claim(id, Target("m", "1"), jobs), 1.0, ["a" * 9, "b", "c" * 9], codec_for(str))
    blobs = Slow(tmp_path, b"secret")
    done = recorded(kept, engine, blobs, prediction)
    assert sorted(done.ids) == ids
    with engine.begin() as connection:
        outputs = [store.read_output(connection, store.DEFAULT_TENANT, each.id) for each in jobs]
    bodies = [output and (output.body or blobs.get(output.blob or "")) for _, output in filter(None, outputs)]
    assert bodies == [b"a" * 9, b"b", b"c" * 9]


def test_an_output_that_postgres_refuses_fails_alone(engine: store.Engine, kept: store.Kept, tmp_path: Path) -> None:
    ids = submit(engine, 3)
    id, jobs = claim(engine, ids)
    outcomes: list[Outcome] = [Done(b"1", "text/plain"), Done(b"2", "text/\0plain"), Done(b"3", "text/plain")]
    prediction = Prediction(Claim(id, Target("m", "1"), jobs), 1.0, outcomes, codec_for(str))
    blobs = Directory(tmp_path, b"secret")
    done = recorded(kept, engine, blobs, prediction, inline_max=100)
    assert sorted(done.ids) == ids
    rows = [read(engine, each) for each in ids]
    assert [row and row.status for row in rows] == [Status.SUCCEEDED, Status.FAILED, Status.SUCCEEDED]
    assert rows[1]
    assert b"output_invalid" in (rows[1].error or b"")
    assert not start(engine, id), "the claim is closed"


def test_an_output_that_is_larger_than_the_store_takes_fails_alone(
    engine: store.Engine, kept: store.Kept, tmp_path: Path
) -> None:
    class Small(Directory):
        def put(self, key: str, body: bytes, content_type: str) -> None:
            if len(body) > 20:
                raise BlobOversized("it takes 20 bytes")
            super().put(key, body, content_type)

        def put_file(self, key: str, file: BinaryIO, content_type: str) -> None:
            self.put(key, file.read(), content_type)

    large = tmp_path / "large"
    large.write_bytes(b"x" * 30)
    ids = submit(engine, 3)
    id, jobs = claim(engine, ids)
    outcomes: list[Outcome] = [Done(b"1" * 10, "a/b"), Done(b"2" * 30, "a/b"), Done(File(large), "a/b")]
    prediction = Prediction(Claim(id, Target("m", "1"), jobs), 1.0, outcomes, codec_for(bytes))
    recorded(kept, engine, Small(tmp_path / "blobs", b"secret"), prediction, inline_max=5)
    rows = [read(engine, each) for each in ids]
    assert [row and row.status for row in rows] == [Status.SUCCEEDED, Status.FAILED, Status.FAILED]
    assert all(row and b"it takes 20 bytes" in (row.error or b"") for row in rows[1:])
    assert not start(engine, id), "the claim is closed"
