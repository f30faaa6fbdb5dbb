"""Reload, for development: a worker serves the models of one file, and again whenever it is saved.

The file is run anew in the worker's own process, where torch and the like are imported already, and its models take the
place of the former ones between two batches. Where it cannot be run, or one of its models cannot be loaded, nothing is
replaced. What the file imports is not read again.
"""

import importlib.util
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import redis

from tundish import queue, store
from tundish.catalog import CatalogError, Served, describe
from tundish.model import Model
from workers.upcoming import Ended

log = logging.getLogger(__name__)

#: Seconds between two looks at the file. It is read once two of them see the same: an editor may still be writing it.
LOOK = 0.05
#: Seconds that Redis is waited on at most: only then the queues of a new model are asked for.
LISTENS = 0.5

#: Serves models in place of all that are served. Raises what keeps them from being served.
Serve = Callable[[list[type[Model[Any, Any]]]], None]


class Reload:
    """Follows the models of `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: object = None
        self._served = ""

    @classmethod
    def of(cls, file: str) -> "Reload":
        return cls(Path(file).absolute())

    def start(self, serve: Serve) -> None:
        """Serve what the file holds now, and go on in the background."""
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what a model prints shows at once
        with suppress(ImportError):  # a model that begins to use it shall not wait for its import, over a second
            importlib.import_module("torch")
        self._seen = self._stamp()
        self._read(serve)
        threading.Thread(target=self._watch, args=(serve,), name="reload", daemon=True).start()

    def _watch(self, serve: Serve) -> None:
        before = self._seen
        while True:
            time.sleep(LOOK)
            now = self._stamp()
            if now == before != self._seen:
                self._seen = now
                self._read(serve)
            before = now

    def _stamp(self) -> object:
        """Differs after each save, by whatever way an editor writes; None while there is no file."""
        try:
            told = self._file.stat()
        except OSError:
            return None
        return told.st_ino, told.st_mtime_ns, told.st_size

    def _read(self, serve: Serve) -> None:
        began = time.monotonic()
        try:
            found = models(self._file)
            serve(found)
        except Ended as ended:
            log.info("%s is not read: %s", self._file, ended)
        except BaseException as error:  # what ends this thread would end all reading, and nobody would hear of it
            if threading.current_thread() is threading.main_thread() and isinstance(error, KeyboardInterrupt):
                raise  # it is the operator's, who interrupts the start
            meanwhile = f"{self._served} stays as it was" if self._served else "nothing is"
            log.error("%s cannot be served; until it can, %s\n%s", self._file, meanwhile, _told(error, self._file))
        else:
            self._served = ", ".join(f"{each.name}@{each.version}" for each in found)
            log.info("%s is served: %s, after %.2f s", self._file, self._served, time.monotonic() - began)


def publish(engine: store.Engine, client: redis.Redis, served: Sequence[Served]) -> None:
    """Write to the catalog what is served now, and let all who hold a copy read it at once. Raises StoreError."""
    with engine.begin() as connection:
        store.register(connection, [describe(each) for each in served])
        aliases = store.catalog(connection, 0).aliases
    with suppress(redis.RedisError):
        client.publish(queue.CATALOG, b"")
    for each in served:
        name, version, default = each.model.name, each.model.version, aliases[each.model.name]["default"]
        if version not in default.weights:
            means = " and ".join(default.weights)
            log.warning("%s alone still means version %s: ask for %s@%s, or move its alias", name, means, name, version)


def models(file: Path) -> list[type[Model[Any, Any]]]:
    """Run a file, and give the models that it defines, less those without a name that others are made from. Raises
    CatalogError, and whatever the file raises."""
    module = _run(file)
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Model) and each.__module__ == module.__name__
    ]
    bases = {base for each in found for base in each.__mro__[1:]}
    served = [each for each in found if hasattr(each, "name") or each not in bases]
    if not served:
        raise CatalogError("it defines no model: write class Mine(Model[Input, Output]) with name, version and predict")
    return list(dict.fromkeys(served))


def _run(file: Path) -> ModuleType:
    """The module that an import of the file would give, from what the file holds now and not from a compiled copy."""
    name, root = _name(file)
    if root not in sys.path:
        sys.path.append(root)
    try:
        code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    except FileNotFoundError:
        raise CatalogError("there is no such file") from None
    found = importlib.util.find_spec(name)
    if found and not (found.origin and Path(found.origin).exists() and file.samefile(found.origin)):
        raise CatalogError(f"{found.origin} is the module {name} already; give the file another name")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    module, former = importlib.util.module_from_spec(spec), sys.modules.get(name)
    sys.modules[name] = module  # dataclasses look there for what their annotations name
    try:
        exec(code, vars(module))
    except BaseException:
        sys.modules.pop(name)
        if former:
            sys.modules[name] = former
        raise
    return module


def _name(file: Path) -> tuple[str, str]:
    """What an import calls the file, and the folder that Python finds it from: the first that is no package."""
    steps = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file():
        steps.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(steps)), str(folder)


def _told(error: BaseException, file: Path) -> str:
    """A traceback, from the file's own lines on."""
    if isinstance(error, CatalogError):
        return str(error)
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename != str(file):
        frames = frames.tb_next
    if frames or isinstance(error, SyntaxError):
        error = error.with_traceback(frames)
    return "".join(traceback.format_exception(error)).rstrip()
