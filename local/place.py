"""The folder that one running system lives in: data, logs, sockets, the lock that lets only one be."""

import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.say import Stop, say

#: The longest path of a Unix socket is 103 bytes (macOS); the longest name we put in the folder has 24.
SOCKET_FOLDER = 103 - 24


@dataclass
class Place:
    """TUNDISH_DATA_DIR, locked. `run` holds sockets: it is elsewhere where the path is too long for one."""

    root: Path
    run: Path = field(init=False)
    lock: int = field(init=False)

    def __post_init__(self) -> None:
        self.root = self.root.absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            self.lock = self._take_lock()
            self.root.chmod(0o700)
            self.run = self._sockets()
        except OSError as error:
            raise Stop(
                f"{self.root} cannot be used: {error.strerror}; set TUNDISH_DATA_DIR to a folder you can write"
            ) from error

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def secret(self) -> str:
        """Made once, so that signed URLs outlive a restart."""
        path = self.root / "secret"
        if not path.exists():
            part = self.root / "secret.part"
            with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            part.replace(path)
        return path.read_text()

    def write_state(self, state: dict[str, Any]) -> None:
        """For `read_state`. Raises OSError."""
        part = self.root / "state.part"
        part.write_text(json.dumps(state, indent=1))
        part.replace(self.root / "state.json")

    def close(self) -> None:
        """Remove what is only of use while the system runs."""
        shutil.rmtree(self.run, ignore_errors=True)
        os.close(self.lock)

    def _take_lock(self) -> int:
        lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        until = time.monotonic() + 45
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pid = owner(self.root)
                if pid and alive(pid):
                    raise Stop(
                        f"{self.root} is in use by process {pid}; `./dev down` stops it, or set TUNDISH_DATA_DIR"
                        " and TUNDISH_PORT for a second one"
                    ) from None
                if time.monotonic() > until:
                    raise Stop(f"{self.root} is locked, and what ran there does not end; see its logs") from None
                if not told:
                    say("  what ran here before is still being stopped …")
                    told = True
                time.sleep(0.1)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def _sockets(self) -> Path:
        run = self.root / "run"
        if len(os.fsencode(run)) <= SOCKET_FOLDER and re.fullmatch(r"[\w./-]+", str(run), re.ASCII):
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir(mode=0o700)
            return run
        for base in (os.environ.get("XDG_RUNTIME_DIR"), "/tmp"):
            if base and len(base) < 40 and os.access(base, os.W_OK):
                return Path(tempfile.mkdtemp(prefix="tundish-", dir=base))
        raise Stop(f"{self.root} is too long a path for a Unix socket; set TUNDISH_DATA_DIR to a shorter one")


def owner(root: Path) -> int | None:
    """The process that holds, or held, the lock of a place."""
    try:
        return int((root / "lock").read_text())
    except (OSError, ValueError):
        return None


def alive(pid: int) -> bool:
    """Whether a process runs. One that has ended, and that nobody waits for, as in a container without an init, does
    not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # not Linux, where another init sees to it; or just gone
        return True
    return state not in "ZX"


def read_state(root: Path) -> dict[str, Any] | None:
    """What the supervisor last wrote, or None where none ever ran."""
    try:
        state: dict[str, Any] = json.loads((root / "state.json").read_text())
        return state
    except (OSError, ValueError):
        return None
