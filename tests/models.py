"""Models that do as they are told, for the tests."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from threading import Event
from typing import Any

from tundish import Batch, File, Model, Reject


@dataclass
class Value:
    value: Any


class Echo(Model[Value, Value]):
    """Gives back what it got."""

    name = "echo"
    version = "1"
    max_batch = 64
    example = Value("hello")

    def predict(self, batch: Batch[Value]) -> list[Value | Reject]:
        return list(batch)


class Pooled(Model[Value, Value]):
    """Gives back what it got, by way of a process that it forks."""

    name = "pooled"
    version = "1"
    timeout = 5.0

    def predict(self, batch: Batch[Value]) -> list[Value | Reject]:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return [Value(each) for each in pool.map(abs, [item.value for item in batch])]


@dataclass
class Inner:
    flag: bool


@dataclass
class Fields:
    text: str
    count: int
    share: float
    tags: list[str]
    inner: Inner
    note: str | None = None


class Typed(Model[Fields, Fields]):
    """Gives back fields of every kind."""

    name = "typed"
    version = "1"
    example = Fields("a", 1, 0.5, ["b"], Inner(True))

    def predict(self, batch: Batch[Fields]) -> list[Fields | Reject]:
        return list(batch)


class Octets(Model[bytes, bytes]):
    """Gives back bytes, reversed."""

    name = "octets"
    version = "1"

    def predict(self, batch: Batch[bytes]) -> list[bytes | Reject]:
        return [item[::-1] for item in batch]


class Shout(Model[str, str]):
    """Gives back a text, louder."""

    name = "shout"
    version = "1"
    output_type = "text/markdown; charset=utf-8"
    example = "hello"

    def predict(self, batch: Batch[str]) -> list[str | Reject]:
        return [item.upper() for item in batch]


_INVERSE = bytes(255 - each for each in range(256))


class Inverted(Model[File, File]):
    """Gives back a file, each byte inverted, a piece at a time."""

    name = "inverted"
    version = "1"
    max_batch = 2

    def predict(self, batch: Batch[File]) -> list[File | Reject]:
        outputs: list[File | Reject] = []
        for item in batch:
            path = batch.file(".inverted")
            with item.path.open("rb") as source, path.open("wb") as target:
                while piece := source.read(1 << 20):
                    target.write(piece.translate(_INVERSE))
            outputs.append(File(path, item.content_type))
        return outputs


@dataclass
class Measures:
    size: int
    sha256: str
    content_type: str | None
    path: str


class Measured(Model[File, Measures]):
    """Says what it finds in a file."""

    name = "measured"
    version = "1"

    def predict(self, batch: Batch[File]) -> list[Measures | Reject]:
        return [self._one(item) for item in batch]

    def _one(self, item: File) -> Measures:
        with item.path.open("rb") as file:
            sum = file_digest(file, "sha256").hexdigest()
        return Measures(item.path.stat().st_size, sum, item.content_type, str(item.path))


@dataclass
class Wish:
    size: int
    fault: str = ""


class Made(Model[Wish, File]):
    """Makes files of zeros, or what is none."""

    name = "made"
    version = "1"
    output_type = "video/mp4"

    def predict(self, batch: Batch[Wish]) -> list[File | Reject]:
        return [self._one(batch, item) for item in batch]

    def _one(self, batch: Batch[Wish], item: Wish) -> File | Reject:
        path = batch.file()
        with path.open("wb") as file:
            file.truncate(item.size)
        match item.fault:
            case "gone":
                path.unlink()
            case "a path":
                return str(path)  # type: ignore[return-value]  # that is the fault
            case "a folder":
                path.unlink()
                path.mkdir()
            case "raise":
                raise ValueError("told to")
        return File(path)


@dataclass
class Numbers:
    values: list[float]


class Scale1(Model[Numbers, Numbers]):
    """Gives back numbers: the first of three versions of one model."""

    name = "scale"
    version = "1"
    max_batch = 64
    factor = 1.0

    def predict(self, batch: Batch[Numbers]) -> list[Numbers | Reject]:
        return [self._one(item.values) for item in batch]

    def _one(self, values: list[float]) -> Numbers | Reject:
        return Numbers([value * self.factor for value in values])


class Scale2(Scale1):
    """As the first, but for what rounding does."""

    version = "2"
    factor = 1.00001


class Scale3(Scale1):
    """Gives other numbers, and takes none below 0."""

    version = "3"
    factor = 2.0

    def _one(self, values: list[float]) -> Numbers | Reject:
        return Reject("below 0") if min(values) < 0 else super()._one(values)


@dataclass
class Order:
    do: str


@dataclass
class Done:
    number: float


class Moody(Model[Order, Done]):
    """Raises, rejects, or gives what is no number, as it is told."""

    name = "moody"
    version = "1"
    max_batch = 16

    def predict(self, batch: Batch[Order]) -> list[Done | Reject]:
        if any(item.do == "raise" for item in batch):
            raise ValueError("told to")
        return [self._one(item) for item in batch]

    def _one(self, item: Order) -> Done | Reject:
        if item.do == "reject":
            return Reject("told to")
        return Done(float("nan") if item.do == "nan" else 1.0)


class Hanging(Model[Order, Done]):
    """Never comes back from an item that tells it so, where it is predicted or where it is collated."""

    name = "hanging"
    version = "1"
    max_batch = 8
    timeout = 0.5

    def collate(self, items: Sequence[Order]) -> None:
        if any(item.do == "hang ahead" for item in items):
            Event().wait()

    def predict(self, batch: Batch[Order]) -> list[Done | Reject]:
        if any(item.do == "hang" for item in batch):
            Event().wait()
        if any(item.do == "poison" for item in batch):
            raise RuntimeError("CUDA error: device-side assert triggered")
        return [Done(1.0)] * len(batch)


@dataclass
class Gate:
    folder: str
    name: str


class Gated(Model[Gate, Value]):
    """Writes down that it began, then waits until it may go on."""

    name = "gated"
    version = "1"
    max_batch = 4

    def predict(self, batch: Batch[Gate]) -> list[Value | Reject]:
        for item in batch:
            folder = Path(item.folder)
            with (folder / "began").open("a") as ledger:
                ledger.write(f"{item.name} {os.getpid()}\n")
            until = time.monotonic() + 60
            while not (folder / "open").exists() and time.monotonic() < until:
                if all(batch.canceled(index) for index in range(len(batch))):
                    return [Value("canceled")] * len(batch)
                time.sleep(0.02)
        return [Value(item.name) for item in batch]


@dataclass
class Script:
    folder: str
    pieces: list[Any]
    hold: int | None = None  # the place before which it waits
    times: int = 1  # that it tells each


class Teller(Model[Script, Value]):
    """Tells its pieces one after another, with progress and a line of the log each; writes down that it began, and
    waits where it is told to."""

    name = "teller"
    version = "1"
    max_batch = 256

    def predict(self, batch: Batch[Script]) -> list[Value | Reject]:
        for item in batch:
            (Path(item.folder) / "began").write_text(str(os.getpid()))
        for place in range(max(len(item.pieces) for item in batch)):
            for index, item in enumerate(batch):
                if item.hold == place:
                    self._wait(batch, index)
                if place < len(item.pieces) and not batch.canceled(index):
                    batch.log(index, f"piece {place}")
                    for _ in range(item.times):
                        batch.emit(index, item.pieces[place])
                    batch.progress(index, (place + 1) / len(item.pieces))
        return [Value(item.pieces) for item in batch]

    def _wait(self, batch: Batch[Script], index: int) -> None:
        folder, until = Path(batch[index].folder), time.monotonic() + 60
        while not (folder / "open").exists() and time.monotonic() < until:
            if batch.canceled(index):
                (folder / "let go").touch()
                return
            time.sleep(0.02)
