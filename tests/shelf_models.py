"""Models for a worker whose device does not hold them all, and a device that goes away when it is told to."""

import os
import signal
import sys
import time
from pathlib import Path
from threading import Event
from typing import ClassVar
from unittest.mock import patch

from tests.models import Gate, Gated, Value
from tundish import Batch, Model, Reject
from workers import gpu, quarantine
from workers.__main__ import main
from workers.heart import Heart


class Sized(Model[Value, Value]):
    """Says so in a ledger when it comes and goes."""

    version = "1"
    memory: ClassVar[int | None] = 1000
    max_batch = 4

    def _tell(self, what: str) -> None:
        with Path(os.environ["SHELF"], "ledger").open("a") as ledger:
            ledger.write(f"{what} {self.name} {os.getpid()}\n")

    def load(self, device: str) -> None:
        self._tell("load")

    def predict(self, batch: Batch[Value]) -> list[Value | Reject]:
        return list(batch)

    def unload(self) -> None:
        self._tell("unload")


class One(Sized):
    name = "one"
    example = Value("hello")


class Two(Sized):
    name = "two"


class Three(Sized):
    """Takes its time to load, which is what a test measures."""

    name = "three"

    def load(self, device: str) -> None:
        super().load(device)
        Event().wait(0.05)


class Large(Sized):
    name = "large"
    memory = 5000


class Broken(Sized):
    """Cannot be loaded until there is a file."""

    name = "broken"

    def load(self, device: str) -> None:
        if not Path(os.environ["SHELF"], "mended").exists():
            raise OSError("the weights are not there")


class Leaking(Sized):
    """Keeps 4 MiB a job; a process that has kept `many` goes on once there is a file."""

    name = "leaking"
    kept: ClassVar[list[bytes]] = []
    piece: ClassVar[int] = 4 * 2**20
    many: ClassVar[int] = 120

    def predict(self, batch: Batch[Value]) -> list[Value | Reject]:
        self.kept.extend(os.urandom(self.piece // 4) * 4 for _ in batch)
        while len(self.kept) >= self.many and not Path(os.environ["SHELF"], "drains").exists():
            Event().wait(0.01)
        return list(batch)


class Lonely(Gated):
    """As Gated, for a worker of its own; leaves a file when it is loaded and unloaded. Loads for as long as there is a
    file, and poisons the device where there is another one."""

    name = "lonely"

    def load(self, device: str) -> None:
        folder = Path(os.environ["SHELF"])
        (folder / "loads").touch()
        while (folder / "heavy").exists():
            Event().wait(0.01)
        if (folder / "poisonous").exists():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def predict(self, batch: Batch[Gate]) -> list[Value | Reject]:
        return super().predict(batch)

    def unload(self) -> None:
        Path(os.environ["SHELF"], "unloaded").touch()


class Breakable(gpu.Cpu):
    """Is gone once there is a file, and hangs whoever asks more of it then, as CUDA does."""

    def __init__(self) -> None:
        super().__init__()
        self._told = False

    def memory(self) -> tuple[int, int] | None:
        if self._told:
            Event().wait()
        return None

    def fault(self, wait: float = 0.0) -> str | None:
        gone = Path(os.environ["SHELF"], "gone")
        until = time.monotonic() + wait
        while not gone.exists() and time.monotonic() < until:
            Event().wait(0.02)
        self._told = gone.exists()
        return "told to" if self._told else None

    def probe(self) -> str | None:
        return self.fault()


class Hasty(Heart):
    """Is told to stop right behind its first beat, where there is a file."""

    def start(self) -> None:
        super().start()
        if Path(os.environ["SHELF"], "stop").exists():
            signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    quarantine.WAIT = (float(os.environ["WAIT"]),) * 2
    with patch("workers.worker.Heart", Hasty):
        sys.exit(main(named=lambda name: Breakable()))
