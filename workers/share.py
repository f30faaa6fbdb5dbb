"""The share: one device for several workers of a machine. Each says what it holds of it, and what it wants.

    DEVICE/           locked while a worker loads or copies
    DEVICE/*.share    a worker's: bytes that it holds, bytes that it wants, and since when; locked while it lives

Locks are of the kernel: they go with their process, so that the share of a killed worker comes back by itself.
"""

import fcntl
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from workers.gpu import Device
from workers.turn import Wish

log = logging.getLogger(__name__)

#: The part of a GPU's memory that models may take: the rest is for what their batches need.
SHARE = 0.9
#: Seconds between two looks at the others; and where they share nothing but the machine's memory.
LOOK, REST = 0.25, 5.0
#: Seconds that one waits for another's load to end; then it hangs, or is longer than what a false measure costs.
PATIENCE = 60.0

_SHM = Path("/dev/shm")
#: The folder of a user's devices, the same for all workers of a machine.
HOME = (_SHM if _SHM.is_dir() else Path(tempfile.gettempdir())) / f"tundish-{os.getuid()}"


class Others(NamedTuple):
    """The other workers that live: `held` bytes of this device, the `wish` that is the oldest of those on it, and how
    many `workers` there are on the machine."""

    held: int = 0
    wish: Wish | None = None
    workers: int = 0


class Share:
    """One worker's, of at most `limit` bytes. A device that has no memory of its own goes by `name`, and has as many
    bytes in all; without a limit it is not shared."""

    def __init__(self, device: Device, name: str, limit: float = math.inf, home: Path = HOME) -> None:
        self._device = device
        self._name = name
        self._limit = self._total = limit
        self._home = home
        self._held = 0
        self._wish: Wish | None = None
        self._said = ""
        self._strange = 0  # bytes of the device in use that no worker holds
        self._mutex = threading.RLock()
        self._closed = threading.Event()
        self.others = Others()

    def open(self) -> None:
        """Be known to the others from now on. Raises OSError."""
        if memory := self._device.memory():
            self._total = SHARE * memory[0]
        self._folder = self._home / (self._device.uuid() or self._name)
        self._meet()
        self.look()

    def close(self) -> None:
        """Hold nothing any more."""
        self._closed.set()
        with self._mutex:
            _remove(self._path)
            os.close(self._file)

    @property
    def best(self) -> float:
        """Bytes that it may have where no other worker holds any."""
        return min(self._limit, self._total)

    @property
    def budget(self) -> float:
        """Bytes that it may have, as it was at the last look and measure."""
        return min(self._limit, self._total - self.others.held - self._strange)

    def hold(self, held: int) -> None:
        """It holds so many bytes from now on."""
        with self._mutex:
            self._held = held
            self._say()

    def want(self, wish: Wish | None) -> None:
        """This is what it lacks from now on."""
        with self._mutex:
            self._wish = wish
            self._say()

    def look(self) -> None:
        """See what the others hold and want now."""
        with self._mutex:
            # Somebody may empty the folder, as systemd does when its user logs out.
            if not (self._closed.is_set() or self._path.exists()):
                gone = self._file
                self._meet()
                os.close(gone)
            held, wishes, workers = 0, [], 0
            for path in _shares(self._home):
                if path == self._path or not (told := _told(path)):
                    continue
                workers += 1
                if path.parent == self._path.parent and self._total < math.inf:
                    held += told.held
                    wishes += [told.wish] if told.wish else []
            self.others = Others(held, min(wishes, key=lambda each: each.since, default=None), workers)

    def measure(self) -> None:
        """See what is in use that no worker holds: what other programs take, and what it costs to run on the device at
        all. Not under a batch: while CUDA graphs are recorded nothing may be asked of it."""
        if memory := self._device.memory():
            ours = max(self._device.taken(), self._held)
            self._strange = max(0, memory[1] - ours - self.others.held)

    def watch(self, on_change: Callable[[], None]) -> None:
        """Look in a thread of its own; `on_change` is called once something has changed, and again and again while
        there is less room than is wanted."""

        def look() -> None:
            while not self._closed.wait(LOOK if self._total < math.inf else REST):
                before = self.others
                try:
                    self.look()
                except OSError as error:
                    log.warning("cannot see what other workers hold: %s", error)
                if self._wish or self.others != before:
                    on_change()

        threading.Thread(target=look, name="share", daemon=True).start()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other worker loads or copies within the block; what the device has is measured first."""
        self.look()
        lock = os.open(self._folder, os.O_RDONLY)
        try:
            self._wait_for(lock)
            self.look()
            self.measure()
            yield
        finally:
            os.close(lock)

    def _meet(self) -> None:
        self._home.mkdir(mode=0o700, exist_ok=True)
        if self._home.is_symlink() or self._home.stat().st_uid != os.getuid():
            raise PermissionError(f"{self._home} belongs to another user")
        self._path, self._file = _own(self._folder)
        self._said = ""
        self._say()

    def _wait_for(self, lock: int) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with suppress(BlockingIOError):
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._closed.wait(0.02)
        log.warning("another worker is busy with %s for over %.0f s: it is not waited for", self._name, PATIENCE)

    def _say(self) -> None:
        size, since = self._wish or (0, math.inf)
        said = f"{self._held:20} {size:20} {since:25}\n"
        if said != self._said and not self._closed.is_set():
            os.pwrite(self._file, said.encode(), 0)
            self._said = said


class _Told(NamedTuple):
    held: int
    wish: Wish | None


def _shares(home: Path) -> Iterator[Path]:
    """Those of all devices, though workers end meanwhile."""
    for device in home.iterdir():
        with suppress(FileNotFoundError, NotADirectoryError):
            yield from [path for path in device.iterdir() if path.suffix == ".share"]


def _told(path: Path) -> _Told | None:
    """What a worker says of itself. None where it has ended: then its file goes."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # Nothing yet, of a worker that has just come.
                held, size, since = file.read().split() or (0, 0, 0)
                return _Told(int(held), Wish(int(size), float(since)) if int(size) else None)
            _remove(path)
    except FileNotFoundError:
        pass
    return None


def _own(folder: Path) -> tuple[Path, int]:
    """A new file, open and locked."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # the last worker that was here has just ended
            file, name = tempfile.mkstemp(".share", "", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:
                return Path(name), file
            os.close(file)  # who looked before it was locked has removed it


def _remove(path: Path) -> None:
    """With its folder, where it is the last one."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()
