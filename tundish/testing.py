"""Run a model with no service, by the same code as a worker."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from tundish.artifact import Cache
from tundish.blobs import open_blobs
from tundish.codec import Codec, EncodeError, codecs_of
from tundish.execute import encoded, execute
from tundish.job import Code
from tundish.model import Model, Reject, check
from tundish.outcome import Canceled, Done, Failed, Item
from tundish.runtime import Runtime
from tundish.settings import Settings
from tundish.tune import tune

In = TypeVar("In")
Out = TypeVar("Out")


class JobFailed(AssertionError):
    """A job that would fail in the service too; `code` is its error's code."""

    def __init__(self, index: int, failed: Failed) -> None:
        super().__init__(f"item {index}: {failed.code}: {failed.message}")
        self.index = index
        self.code = failed.code


class Recorder:
    """What a batch reported: `(index, value)` pairs. `first` is the index of its first item."""

    def __init__(self) -> None:
        self.first = 0
        self.progressed: list[tuple[int, float]] = []
        self.emitted: list[tuple[int, Any]] = []
        self.logged: list[tuple[int, str]] = []
        self.cancel: set[int] = set()

    def progress(self, index: int, fraction: float) -> None:
        self.progressed.append((self.first + index, fraction))

    def emit(self, index: int, piece: Any) -> None:
        self.emitted.append((self.first + index, piece))

    def log(self, index: int, text: str) -> None:
        self.logged.append((self.first + index, text))

    def canceled(self, index: int) -> bool:
        return self.first + index in self.cancel

    def again(self, indexes: Sequence[int]) -> None:
        """The batch is divided: its items are predicted again, and say it all again."""


def run(
    model: type[Model[In, Out]],
    items: Sequence[In],
    device: str = "cpu",
    reporter: Recorder | None = None,
    folder: Path | None = None,
    files: Path | None = None,
) -> "list[Out | Reject]":
    """Load `model`, predict `items` in batches of its `max_batch`, unload it. An output, or the Reject, for each item;
    both go through bytes as they would in the service; `Reject("canceled")` for one that `reporter` says is canceled,
    by its index in `items`.
    A tundish.File is passed on as it is; those that the model makes lie in `folder`, else in a temporary one, and are
    left there. A model's `artifact` is pulled as the settings say, or `files` is the folder to take instead. Raises
    JobFailed for the first item that fails otherwise, EncodeError for one that is no input of the model."""
    check(model)
    reads, writes = codecs_of(model)
    if writes.in_files and folder is None:
        folder = Path(tempfile.mkdtemp(prefix="tundish-"))
    loaded = model()
    if files is not None:
        loaded.files = files
    elif model.artifact is not None:
        settings = Settings.from_environment().embedded()
        Cache.of(settings, open_blobs(settings)).equip(loaded)
    loaded.load(device)
    tune(loaded, device)
    runtime = Runtime(device, folder=folder)
    reporter = reporter or Recorder()
    results: list[Out | Reject] = []
    try:
        for at in range(0, len(items), model.max_batch):
            reporter.first = at
            batch = [_input(reads, index, items[index]) for index in range(len(items))[at : at + model.max_batch]]
            for outcome in execute(loaded, reads, writes, batch, reporter, runtime):
                match outcome:
                    case Done(body):
                        results.append(writes.decode(body))
                    case Canceled():
                        results.append(Reject("canceled"))
                    case Failed(Code.REJECTED, message):
                        results.append(Reject(message))
                    case _:
                        raise JobFailed(len(results), outcome)
    finally:
        loaded.unload()
    return results


def _input(reads: Codec, index: int, item: Any) -> Item:
    try:
        return Item(*encoded(reads, item))
    except EncodeError as error:
        raise EncodeError(str(error).replace("the output", f"item {index}", 1)) from error
