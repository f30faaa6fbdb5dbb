"""A model that writes down each execution, outside the system, before it does what it is told."""

import os
import signal
import uuid
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from tests.chaos.ledger import Ledger
from tundish import Batch, Model, Reject


@dataclass
class Task:
    token: str
    do: str = ""  # "die", or the path of a gate: a file that has to be there
    pad: str = ""  # only makes it larger


@dataclass
class Result:
    token: str
    execution: str  # another one each time


class Worked(Model[Task, Result]):
    name = "worked"
    version = "1"
    max_batch = 16
    # No example: a worker would warm up with it, and that would count as an execution.

    def load(self, device: str) -> None:
        self.ledger = Ledger(Path(os.environ["CHAOS_LEDGER"]))

    def predict(self, batch: Batch[Task]) -> list[Result | Reject]:
        self.ledger.write(*(f"{item.token} {os.getpid()}" for item in batch))
        if any(item.do == "die" for item in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        Event().wait(0.02)
        for gate in {item.do for item in batch if item.do}:
            while not Path(gate).exists():
                Event().wait(0.01)
        return [Result(item.token, uuid.uuid4().hex) for item in batch]
