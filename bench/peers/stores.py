"""Postgres and Valkey for a peer: the programs and settings that Tundish gets, in a temporary folder."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.durable import check
from local import embed
from local.place import Place
from local.supervise import Child
from local.watchdog import end

#: Seconds for a store to answer.
START = 60.0


@contextmanager
def valkey() -> Iterator[str]:
    """The path of its socket."""
    with _place() as place, _running(embed.valkey(place), place, embed.pings):
        yield str(place.run / "valkey.sock")


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of its database `tundish`."""
    with _place() as place:
        child = embed.postgres(place)
        with _running(child, place, embed.answers):
            url = child.url or ""
            embed.create_database(url)
            with psycopg.connect(url) as connection:
                check(connection.execute)
            yield url


@contextmanager
def _place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="tundish-peer-") as folder:
        place = Place(Path(folder))
        try:
            yield place
        finally:
            place.close()


@contextmanager
def _running(child: Child, place: Place, answers: Callable[[str], bool]) -> Iterator[None]:
    with place.log(child.name).open("wb") as log:
        process = subprocess.Popen(
            child.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=os.environ
        )
    try:
        until = time.monotonic() + START
        while not answers(child.url or ""):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{child.name} did not start: {place.log(child.name).read_text()[-500:]}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(child.stop)
        try:
            process.wait(child.grace)
        except subprocess.TimeoutExpired:
            end(process.pid, signal.SIGKILL, 0)
