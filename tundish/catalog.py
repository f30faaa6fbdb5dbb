"""Which models a worker serves, and how it describes them."""

import importlib
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec

from tundish.codec import Codec, DecodeError, EncodeError, codecs_of
from tundish.media import JSON
from tundish.model import DefinitionError, Model, check, types_of
from tundish.version import Version

DEFAULT_POOL = "default"


class CatalogError(ValueError):
    """Models that cannot be found or served; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model class and the pool whose workers serve it."""

    model: type[Model[Any, Any]]
    pool: str = DEFAULT_POOL


def describe(served: Served) -> Version:
    """What the catalog shall say of a model. Raises DefinitionError."""
    model = served.model
    check(model)
    reads, writes = codecs_of(model)
    return Version(
        model=model.name,
        version=model.version,
        pool=served.pool,
        input_type=reads.content_type,
        output_type=writes.content_type,
        input_schema=_input_schema(model, reads),
        output_schema=writes.schema(),
        max_batch=model.max_batch,
        max_wait=model.max_wait,
        max_cost=model.max_cost,
        timeout=model.timeout,
        example=_example(model, reads),
        artifact=model.artifact,
    )


def _input_schema(model: type[Model[Any, Any]], reads: Codec) -> dict[str, Any] | None:
    """Raises DefinitionError for one that the API could not hold inputs against: its patterns are not Python's own."""
    schema = reads.schema()
    if schema is not None:
        try:
            jsonschema_rs.validator_for(schema)
        except jsonschema_rs.ValidationError as error:
            said = f"{model.__qualname__}: the schema of its inputs cannot be used: {error.message}"
            raise DefinitionError(f"{said}; write patterns as JSON Schema has them (ECMA 262), $ for \\Z") from error
    return schema


def _example(model: type[Model[Any, Any]], reads: Codec) -> Any:
    """Its example as the catalog shows it, None where inputs are not of JSON. Raises DefinitionError."""
    if model.example is None or reads.schema() is None:
        return None
    try:
        body = reads.encode(model.example)
        reads.decode(body)
    except (EncodeError, DecodeError) as error:
        said = f"{model.__qualname__}.example is {model.example!r}"
        raise DefinitionError(f"{said}; set it to an input, {types_of(model)[0]!r}, or None") from error
    return msgspec.json.decode(body) if reads.content_type == JSON else model.example


def load_models(spec: str, root: Path) -> list[Served]:
    """The models of `spec` (TUNDISH_MODELS: `module:A,B,other:C`), or of `root`/tundish.toml where it is empty:

        [[models]]
        class = "package.module:Class"
        pool = "gpu"    # default: "default"

    Modules are found on PYTHONPATH and in `root`. Raises CatalogError."""
    if str(root) not in sys.path:
        sys.path.append(str(root))
    return checked(_of_spec(spec) if spec else _of_file(root / "tundish.toml"))


def checked(models: Iterable[Served]) -> list[Served]:
    """Raises CatalogError for what cannot be served, alone or beside the others."""
    served = list(models)
    seen: set[tuple[str, str]] = set()
    for each in served:
        try:
            describe(each)
        except DefinitionError as error:
            raise CatalogError(str(error)) from error
        if (each.model.name, each.model.version) in seen:
            raise CatalogError(f"{each.model.name}@{each.model.version} is named twice; change a version")
        seen.add((each.model.name, each.model.version))
    return served


def _of_spec(spec: str) -> Iterator[Served]:
    module = ""
    for part in (part.strip() for part in spec.split(",")):
        before, colon, name = part.rpartition(":")
        module = before if colon else module
        if not module or not name:
            raise CatalogError(f"TUNDISH_MODELS is {spec!r}; write package.module:Class, several with commas between")
        yield Served(_class(module, name))


def _of_file(path: Path) -> Iterator[Served]:
    if not path.is_file():
        raise CatalogError(f"no model is named; set TUNDISH_MODELS=package.module:Class, or write {path}")
    try:
        models = tomllib.loads(path.read_text("utf-8-sig")).get("models")
        if not isinstance(models, list) or not models:
            raise ValueError("it names no models")
        named = [_entry(each) for each in models]
    except ValueError as error:
        raise CatalogError(f'{path}: {error}; write [[models]] with class = "package.module:Class"') from error
    for module, name, pool in named:
        yield Served(_class(module, name), pool)


def _entry(given: Any) -> tuple[str, str, str]:
    """Module, class and pool. Raises ValueError."""
    if not isinstance(given, dict) or not {"class"} <= set(given) <= {"class", "pool"}:
        raise ValueError(f"{given!r} has not a class, a pool where it is not {DEFAULT_POOL!r}, and nothing else")
    module, _, name = str(given["class"]).rpartition(":")
    pool = given.get("pool", DEFAULT_POOL)
    if not module or not name:
        raise ValueError(f"{given['class']!r} names no class")
    if not isinstance(pool, str) or not pool:
        raise ValueError(f"{pool!r} names no pool")
    return module, name, pool


def _class(module: str, name: str) -> Any:
    if module.startswith("."):
        raise CatalogError(f"{module}:{name} has no package; write package.module:Class")
    if module.endswith(".py"):
        named = module.removeprefix("./").removesuffix(".py").replace("/", ".")
        raise CatalogError(f"{module}:{name} names a file; write its module: {named}:{name}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        own = f"{module}.".startswith(f"{error.name}.")
        remedy = "is it on PYTHONPATH?" if own else f"what has it is installed by {sys.executable} -m pip install …"
        raise CatalogError(f"{module}:{name}: there is no module {error.name}; {remedy}") from error
    except SystemExit as error:
        raise CatalogError(f"{module} ends the process that imports it ({error}); does it run as a script?") from error
    try:
        return getattr(found, name)
    except AttributeError as error:
        models = [each.__name__ for each in vars(found).values() if _is_model(each) and each.__module__ == module]
        there = f"; it defines {', '.join(models)}" if models else ""
        raise CatalogError(f"{module}:{name}: there is no {name} in {module}{there}") from error


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Model)
