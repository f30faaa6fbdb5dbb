"""What a model author writes against: Model, Batch and Reject. The standard library alone."""

import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args, get_origin, overload

from tundish.media import is_media_type
from tundish.settings import LONGEST

In = TypeVar("In")
Out = TypeVar("Out")

#: What names a model, a version or an alias.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ARTIFACT = re.compile(r"sha256:[0-9a-f]{64}")


class DefinitionError(TypeError):
    """A model class that cannot be served; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Reject:
    """In the slot of an item: the model will not predict it, for good. `reason` is told to the caller."""

    reason: str


class Reporter(Protocol):
    """Where progress, pieces and logs of a running batch go, by the item's position in it."""

    def progress(self, index: int, fraction: float) -> None: ...
    def emit(self, index: int, piece: Any) -> None: ...
    def log(self, index: int, text: str) -> None: ...
    def canceled(self, index: int) -> bool: ...
    def again(self, indexes: Sequence[int]) -> None: ...


class Batch(Sequence[In]):
    """The items of one predict call, in order, and what the model's `collate` made of them. Always a sequence, at size
    one too."""

    collated: Any

    def __init__(
        self,
        items: Sequence[In],
        reporter: Reporter,
        positions: Sequence[int],
        folder: Path | None = None,
        collated: Any = None,
    ) -> None:
        self._items = items
        self._reporter = reporter
        self._positions = positions
        self._folder = folder
        self.collated = collated

    @overload
    def __getitem__(self, index: int) -> In: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[In]: ...
    def __getitem__(self, index: int | slice) -> In | Sequence[In]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def padded(self, size: int) -> "Batch[In]":
        """The batch with its last item repeated up to `size`: nobody hears what is said of the copies."""
        positions = [*self._positions, *[_COPY] * (size - len(self))]
        items = padded(self._items, size)
        return Batch(items, _ToItems(self._reporter), positions, self._folder, self.collated)

    def progress(self, index: int, fraction: float) -> None:
        """Item `index` is done by `fraction`, 0 to 1."""
        self._reporter.progress(self._positions[index], fraction)

    def emit(self, index: int, piece: Any) -> None:
        """A piece of item `index`'s output, for who streams it: text, a number, or what else JSON can carry, up to 16
        KiB. The job's output is what predict returns."""
        self._reporter.emit(self._positions[index], piece)

    def log(self, index: int, text: str) -> None:
        """A line for who follows item `index`."""
        self._reporter.log(self._positions[index], text)

    def canceled(self, index: int) -> bool:
        """Whether the caller of item `index` has asked to cancel: its result may be anything."""
        return self._reporter.canceled(self._positions[index])

    def file(self, suffix: str = "") -> Path:
        """A new, empty file to write an output to (`tundish.File`); it is removed once the results are stored."""
        if self._folder is None:
            raise DefinitionError("only a model that reads or writes tundish.File has files of its batch")
        descriptor, path = tempfile.mkstemp(suffix, "output-", self._folder)
        os.close(descriptor)
        return Path(path)


def padded(items: Sequence[In], size: int) -> list[In]:
    """Items, and the last of them again and again, up to `size`."""
    return [*items, *[items[-1]] * (size - len(items))]


#: The position of an item that only fills a batch up.
_COPY = -1


@dataclass(frozen=True, slots=True)
class _ToItems:
    """A reporter for the items of a batch, and not for the copies that fill it up."""

    reporter: Reporter

    def progress(self, index: int, fraction: float) -> None:
        if index != _COPY:
            self.reporter.progress(index, fraction)

    def emit(self, index: int, piece: Any) -> None:
        if index != _COPY:
            self.reporter.emit(index, piece)

    def log(self, index: int, text: str) -> None:
        if index != _COPY:
            self.reporter.log(index, text)

    def canceled(self, index: int) -> bool:
        return index == _COPY or self.reporter.canceled(index)

    def again(self, indexes: Sequence[int]) -> None:
        self.reporter.again(indexes)


class Model(ABC, Generic[In, Out]):
    """One version of a model: `class Embed(Model[Text, Vector])`. `name` and `version` match
    `[a-z0-9][a-z0-9._-]{0,62}`."""

    name: ClassVar[str]
    version: ClassVar[str]
    max_batch: ClassVar[int] = 32  # items
    max_wait: ClassVar[float] = 0.005  # seconds an item waits at most for company; not at all on an idle device
    max_cost: ClassVar[int | None] = None  # of one predict call: its dearest item's `cost` times its count
    timeout: ClassVar[float | None] = None  # seconds of one predict; None: TUNDISH_TIMEOUT
    output_type: ClassVar[str | None] = None  # Content-Type of an output of bytes, str or tundish.File: "image/png"
    artifact: ClassVar[str | None] = None  # its weights, by the reference that `tundish models push` prints
    example: ClassVar[Any] = None  # an input, shown in the catalog, and what the model is warmed up with

    files: Path  # the folder of its artifact's files, to be read only; there before `load`

    # For workers with more models than memory:
    pinned: ClassVar[bool] = False  # stays on the device once it is there
    memory: ClassVar[int | None] = None  # bytes of the device that it takes; None: measured when it has loaded

    # Applied to the torch modules among its attributes once it has loaded:
    half: ClassVar[bool] = False  # weights and arithmetic in half precision
    compile: ClassVar[bool] = False  # torch.compile
    cuda_graphs: ClassVar[bool] = False  # kernels are recorded once for each shape, and replayed
    pad_to: ClassVar[Sequence[int]] = ()  # a batch is filled up to the next of these sizes, so that its shapes are few

    def load(self, device: str) -> None:  # a model may have nothing to load
        """Put the weights on `device` (`cpu`, `cuda:0`). Called once, before the first predict."""

    def collate(self, items: Sequence[In]) -> Any:
        """What predict computes with, as `batch.collated`: tokens, one tensor of all items. The tensors among its
        tuples, lists and dictionaries are on the device by then.

        It is made ahead, in a thread of its own, while the batch before runs, and so is the items' `cost` of a model
        that collates: neither may change what predict reads, and no two threads are in them at once. It is made again
        where a batch is divided. What it raises counts as raised by predict."""
        return None

    @abstractmethod
    def predict(self, batch: Batch[In]) -> "list[Out | Reject]":
        """As many results as items, in order. An exception fails the batch: it is halved until the item at fault is
        alone. Outputs are encoded while the next batch runs, and tensors of a GPU are copied to the host by then: none
        may lie in memory that the next call writes to."""

    def to(self, device: str) -> None:
        """Move the weights to `cpu` to make room for another model, or back. Torch modules and tensors among its
        attributes are moved without this; override it for weights of another kind, else they are loaded again."""

    def unload(self) -> None:
        """Free what `load` took; the instance is not used again."""

    def cost(self, item: In) -> int:
        """What an item counts towards `max_cost`: tokens, pixels. With a `max_cost`, items of like cost are predicted
        together: up to `max_batch` are taken from the queue, and parted so that at most half of a call is padding."""
        return 1


def collates(model: Model[Any, Any]) -> bool:
    """Whether there is anything to make ahead for a batch of the model."""
    return type(model).collate is not Model.collate


def types_of(model: type[Model[Any, Any]]) -> tuple[Any, Any]:
    """The input and output type of a model class, found through its bases. Raises DefinitionError."""
    for base in model.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            if get_origin(generic) is Model and not any(isinstance(each, TypeVar) for each in get_args(generic)):
                reads, writes = get_args(generic)
                return reads, writes
    raise DefinitionError(f"{model.__qualname__} must say its types: class {model.__name__}(Model[Input, Output])")


def check(model: type[Model[Any, Any]]) -> None:
    """Raises DefinitionError for a class that cannot be served."""
    if not (isinstance(model, type) and issubclass(model, Model)):
        raise DefinitionError(f"{model!r} is not a subclass of tundish.Model")
    if unwritten := getattr(model, "__abstractmethods__", None):
        raise DefinitionError(f"{model.__qualname__} must define {', '.join(sorted(unwritten))}")
    types_of(model)
    for attribute in ("name", "version"):
        value = getattr(model, attribute, None)
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise DefinitionError(
                f"{model.__qualname__}.{attribute} is {value!r}; set it to a string that matches {NAME.pattern}"
            )
    if not _count(model.max_batch):
        raise DefinitionError(f"{model.__qualname__}.max_batch is {model.max_batch!r}; set it to 1 or more")
    for attribute in ("pinned", "half", "compile", "cuda_graphs"):
        if not isinstance(value := getattr(model, attribute), bool):
            raise DefinitionError(f"{model.__qualname__}.{attribute} is {value!r}; set it to True or False")
    if model.memory is not None and not _count(model.memory):
        raise DefinitionError(f"{model.__qualname__}.memory is {model.memory!r}; set it to bytes, or to None")
    if not isinstance(model.pad_to, (list, tuple)) or not all(map(_count, model.pad_to)):
        raise DefinitionError(f"{model.__qualname__}.pad_to is {model.pad_to!r}; set it to sizes of 1 or more: (8, 64)")
    if model.max_cost is not None and not _count(model.max_cost):
        raise DefinitionError(f"{model.__qualname__}.max_cost is {model.max_cost!r}; set it to 1 or more, or to None")
    if model.output_type is not None and not is_media_type(str(model.output_type)):
        raise DefinitionError(f"{model.__qualname__}.output_type is {model.output_type!r}; set it to a media type")
    if model.artifact is not None and not _ARTIFACT.fullmatch(str(model.artifact)):
        raise DefinitionError(
            f"{model.__qualname__}.artifact is {model.artifact!r}; set it to the sha256:… that `models push` prints"
        )
    if model.timeout is not None and not (_seconds(model.timeout) and model.timeout > 0):
        raise DefinitionError(
            f"{model.__qualname__}.timeout is {model.timeout!r}; set it to seconds over 0, up to {LONGEST:.0f}, or None"
        )
    if not _seconds(model.max_wait):
        raise DefinitionError(
            f"{model.__qualname__}.max_wait is {model.max_wait!r}; set it to seconds, 0 to {LONGEST:.0f}"
        )


def _seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LONGEST


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
