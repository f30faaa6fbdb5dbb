"""Children under names: started in order, started again when they die, stopped in reverse order, never orphaned."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from local.place import Place
from local.say import Stop, now, say
from local.watchdog import end, end_group
from workers import exits

#: Seconds of the first and the longest wait before a dead child is started again.
BACK_OFF = (1.0, 30.0)
#: A child that lived so long has recovered: its next death waits the first time again.
RECOVERED = 60.0
#: Seconds until what the disk did not take is written again.
UNWRITTEN = 1.0
TREE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Child:
    """A process to run. `stop` is the signal that ends it in good order, within `grace` seconds. What it says goes to
    its log, and is `heard` at the terminal too. A `store` is used by the others, and ends after them."""

    name: str
    command: Sequence[str]
    stop: int = signal.SIGTERM
    grace: float = 10.0
    url: str | None = None
    heard: bool = False
    store: bool = False


class _Exit(NamedTuple):
    name: str
    process: "subprocess.Popen[bytes]"


@dataclass
class _Running:
    child: Child
    process: "subprocess.Popen[bytes]"
    logged: int = 0  # bytes that its log had before it started
    started_at: float = field(default_factory=time.time)
    back_off: float = BACK_OFF[0]
    again_at: float | None = None  # by the monotonic clock, while it waits to be started again
    restarts: int = 0
    last_end: str | None = None  # how the one before it ended

    def wait_after(self, status: int | None) -> float:
        """Seconds until it is started again, after it ended with that exit status."""
        if status == exits.GROWN:  # in good order, to be replaced
            return 0.0
        if status == exits.LOST:
            return BACK_OFF[1]
        if time.time() - self.started_at > RECOVERED:
            self.back_off = BACK_OFF[0]
        wait, self.back_off = self.back_off, min(2 * self.back_off, BACK_OFF[1])
        return wait

    def shown(self, log: Path) -> dict[str, Any]:
        return {
            "name": self.child.name,
            "pid": None if self.again_at else self.process.pid,
            "state": "restarting" if self.again_at else "running",
            "started_at": self.started_at,
            "restarts": self.restarts,
            "last_end": self.last_end,
            "url": self.child.url,
            "log": str(log),
        }


class Supervisor:
    """Runs the children of one place; each gets `environment` as it is when it starts."""

    def __init__(self, place: Place, environment: Mapping[str, str]) -> None:
        self._place = place
        self.environment = dict(environment)
        self._children: dict[str, _Running] = {}
        self._events: queue.SimpleQueue[_Exit | int] = queue.SimpleQueue()
        self._written = True  # what `./dev ps` reads
        self.asked_to_stop = False  # by a signal
        self._watchdog = subprocess.Popen(
            [sys.executable, "-P", "-m", "local.watchdog", *([] if place.run.parent == place.root else [place.run])],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environment, "PYTHONPATH": str(TREE)},
            start_new_session=True,
            pass_fds=[place.lock],
        )
        assert self._watchdog.stdin
        self._watchdog_input = self._watchdog.stdin
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._signaled)

    def _signaled(self, number: int, _: object) -> None:
        self.asked_to_stop = True
        self._events.put(number)

    def start(self, child: Child) -> int:
        """Start a child, or start it again; its process id."""
        before = self._children.get(child.name)
        with self._place.log(child.name).open("ab") as log:
            logged = log.tell()
            process = subprocess.Popen(
                child.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if child.heard else log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        if child.heard:
            threading.Thread(target=self._hear, args=(child.name, process), daemon=True).start()
        self._tell(f"+{process.pid} {int(child.stop)}")
        running = self._children[child.name] = _Running(child, process, logged)
        if before:
            running.back_off, running.restarts, running.last_end = before.back_off, before.restarts + 1, before.last_end
        threading.Thread(target=self._watch, args=(child.name, process), daemon=True).start()
        self._write()
        return process.pid

    def wait_for(self, what: str, ready: Callable[[], bool | str], timeout: float) -> None:
        """Wait until `ready` is True; a text says what is missing. Raises Stop where a child dies meanwhile, a signal
        comes, or time is up."""
        until = time.monotonic() + timeout
        while (state := ready()) is not True:
            try:
                event = self._events.get(timeout=0.05)
            except queue.Empty:
                if time.monotonic() > until:
                    missing = f" ({state})" if state else ""
                    raise Stop(f"{what} was not ready after {timeout:.0f} s{missing}; see {self._place.logs}") from None
                continue
            if isinstance(event, _Exit):
                raise Stop(self._obituary(event))
            raise Stop("stopped")

    def run(self) -> None:
        """Until a signal comes, start again what dies: also on a full disk, of which Postgres dies too."""
        while True:
            waiting = [each.again_at for each in self._children.values() if each.again_at]
            if not self._written:
                waiting.append(time.monotonic() + UNWRITTEN)
            try:
                event = self._events.get(timeout=max(0.0, min(waiting) - time.monotonic()) if waiting else None)
            except queue.Empty:
                self._start_due()
                if not self._written:
                    self._write()
                continue
            if isinstance(event, int):
                return
            running = self._children[event.name]
            if running.process is not event.process:
                continue
            wait = running.wait_after(event.process.returncode)
            running.again_at, running.last_end = time.monotonic() + wait, _how(event.process)
            with suppress(OSError):  # where it goes may be a log on that disk
                say(f"{now()} {event.name} ended ({running.last_end}); it is started again in {wait:.0f} s")
            self._write()

    def stop(self) -> None:
        """End all children: those that use the stores together, then the stores, the last started first."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        running = [each for each in reversed(self._children.values()) if not each.again_at]
        with ThreadPoolExecutor(max(1, len(running))) as pool:
            list(pool.map(self._end, [each for each in running if not each.child.store]))
        for each in running:
            if each.child.store:
                self._end(each)
        with suppress(OSError):
            self._place.write_state({"pid": None, "children": []})
        self._watchdog_input.close()
        self._watchdog.wait()

    def _end(self, running: _Running) -> None:
        end(running.process.pid, running.child.stop, running.child.grace)
        self._tell(f"-{running.process.pid}")

    def _start_due(self) -> None:
        for running in list(self._children.values()):
            if running.again_at and running.again_at <= time.monotonic():
                self.start(running.child)

    def _hear(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout
        with process.stdout as lines, self._place.log(name).open("ab", buffering=0) as log:
            for line in lines:
                log.write(line)
                say(f"{name} | {line.decode(errors='replace').rstrip()}")

    def _watch(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        end_group(process.pid)
        self._tell(f"-{process.pid}")
        self._events.put(_Exit(name, process))

    def _tell(self, line: str) -> None:
        # A thread may tell of a death when the watchdog's work is over.
        with suppress(ValueError, BrokenPipeError):
            self._watchdog_input.write(f"{line}\n".encode())
            self._watchdog_input.flush()

    def _write(self) -> None:
        shown = [each.shown(self._place.log(name)) for name, each in self._children.items()]
        try:
            self._place.write_state({"pid": os.getpid(), "children": shown})
            self._written = True
        except OSError:
            self._written = False

    def said(self, name: str) -> str:
        """Where the log of a child lies, and how it ends, less what earlier ones said there."""
        log = self._place.log(name)
        with log.open("rb") as file:
            file.seek(self._children[name].logged)
            said = file.read().decode(errors="replace")
        lines = "".join(f"\n    {line}" for line in said.splitlines()[-5:])
        return f"its log {log} ends with:{lines}"

    def _obituary(self, event: _Exit) -> str:
        return f"{event.name} ended during the start ({_how(event.process)}); {self.said(event.name)}"


def _how(process: "subprocess.Popen[bytes]") -> str:
    code = process.returncode
    return f"signal {-code}" if code and code < 0 else f"exit status {code}"
