"""Models that cost nothing, or a known amount."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tundish import Batch, File, Model, Reject


class Noop(Model[int, int]):
    """Gives back its number."""

    name = "noop"
    version = "1"
    max_batch = 256

    def predict(self, batch: Batch[int]) -> list[int | Reject]:
        return list(batch)


@dataclass
class Text:
    text: str


@dataclass
class Count:
    words: int


class Words(Model[Text, Count]):
    """Counts words: what a small job of JSON looks like."""

    name = "words"
    version = "1"
    max_batch = 256

    def predict(self, batch: Batch[Text]) -> list[Count | Reject]:
        return [Count(len(item.text.split())) for item in batch]


class Sleeper(Model[int, int]):
    """A device that takes 50 ms for a batch of 16, and no CPU."""

    name = "sleeper"
    version = "1"
    max_batch = 16
    seconds = 0.05

    def predict(self, batch: Batch[int]) -> list[int | Reject]:
        time.sleep(self.seconds)
        return list(batch)


class Paced(Model[float, float]):
    """Ends each job so many seconds after the first one began, one at a time."""

    name = "paced"
    version = "1"
    max_batch = 1
    began = 0.0

    def predict(self, batch: Batch[float]) -> list[float | Reject]:
        self.began = self.began or time.monotonic()
        time.sleep(max(0.0, self.began + batch[0] - time.monotonic()))
        return list(batch)


@dataclass
class Speech:
    go: str  # a file that it waits for; empty: none
    seconds: float
    rate: int  # pieces a second, of all items together


class Speaker(Model[Speech, int]):
    """Says what time it is, to one item after another."""

    name = "speaker"
    version = "1"
    max_batch = 2000
    max_wait = 2.0

    def predict(self, batch: Batch[Speech]) -> list[int | Reject]:
        speech = batch[0]
        while speech.go and not Path(speech.go).exists():
            time.sleep(0.01)
        began, said = time.monotonic(), 0
        while (now := time.monotonic() - began) < speech.seconds:
            while said < now * speech.rate:
                batch.emit(said % len(batch), time.time())
                said += 1
            time.sleep(0.005)
        return [said] * len(batch)


class Copied(Model[File, File]):
    """Gives back a copy of its file."""

    name = "copied"
    version = "1"
    max_batch = 1

    def predict(self, batch: Batch[File]) -> list[File | Reject]:
        outputs: list[File | Reject] = []
        for item in batch:
            path = batch.file()
            shutil.copyfile(item.path, path)
            outputs.append(File(path, item.content_type))
        return outputs
