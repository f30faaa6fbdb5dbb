"""The catalog as the API holds it: which version a `model` means, and whether an input is one of its inputs."""

import asyncio
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import jsonschema_rs

from tundish import store
from tundish.errors import NotFound, Refused, Unavailable
from tundish.routing import Routing

log = logging.getLogger(__name__)

#: Seconds between looks at the catalog, where no notice of a change came.
EVERY = 2.0
#: At most so many faults of an input are told.
FAULTS = 16

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Known:
    """A version with its schema compiled; `validator` is None where any input is taken."""

    version: store.Version
    validator: jsonschema_rs.Validator | None

    def check(self, value: object, at: str) -> None:
        """Raises Refused with a pointer (RFC 6901) to each fault, `at` before it."""
        if self.validator is None or self.validator.is_valid(value):
            return
        errors = [fault for error in self.validator.iter_errors(value) for fault in _faults(error, at)]
        detail = f"the input does not fit the schema of {self.version.model}: {errors[0]['detail']}"
        raise Refused("invalid_input", detail, errors[:FAULTS])


class Routed(NamedTuple):
    """The version that a job runs on, and the one that runs a copy of it."""

    known: Known
    shadow: Known | None


class Models:
    """Everything in the catalog: as of the last notice of a change, and at most EVERY seconds old where Redis lost
    it."""

    def __init__(self, engine: store.AsyncEngine, seen_within: float) -> None:
        self._engine = engine
        self._seen_within = seen_within
        self._known: dict[tuple[str, str], Known] = {}
        self._aliases: dict[str, dict[str, Routing]] = {}
        self._paused = store.Paused()
        self._loading = asyncio.Lock()
        self._bell = asyncio.Event()

    async def run(self) -> None:
        """Keep up with the catalog until cancelled."""
        while True:
            try:
                await self.refresh()
            except Unavailable as error:
                log.warning("the catalog is not read: %s", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), EVERY)
            self._bell.clear()

    def changed(self, _: bytes = b"") -> None:
        """A notice: read the catalog now, in the background."""
        self._bell.set()

    async def refresh(self) -> None:
        """Read the catalog now. Raises Unavailable."""
        async with self._loading:
            try:
                read = await store.run(self._engine, store.catalog, self._seen_within)
            except (store.StoreError, store.PoolTimeout, OSError) as error:
                raise Unavailable("unavailable", "the database does not answer; try again", retry_after=2) from error
            self._known = {key: self._compiled(version) for key, version in read.versions.items()}
            self._aliases = read.aliases
            self._paused = read.paused

    async def route(self, model: str, sticky_key: str | None = None) -> Routed:
        """The version that `name`, `name@version` or `name:alias` means, and the alias' shadow unless that is the same
        version; the alias' weights are drawn anew each time, or by `sticky_key`. Raises NotFound for what the catalog
        does not hold even after a fresh look."""
        try:
            return self._route(model, sticky_key)
        except NotFound:
            await self.refresh()
            return self._route(model, sticky_key)

    def _route(self, model: str, sticky_key: str | None) -> Routed:
        name, at, version = model.partition("@")
        name, colon, alias = name.partition(":")
        if name not in self._aliases:
            known = ", ".join(sorted(self._aliases)) or "none yet: start a worker"
            shown = name if NAME.fullmatch(name) else "of that name"
            raise NotFound("model_not_found", f"there is no model {shown}; there are: {known}")
        shadow: str | None = None
        if not at:
            routing = self._aliases[name].get(alias if colon else "default")
            if not routing:
                known = ", ".join(sorted(self._aliases[name]))
                raise NotFound("alias_not_found", f"{name} has no such alias; it has: {known}")
            version, shadow = routing.draw(sticky_key), routing.shadow
        if (colon and at) or (name, version) not in self._known:
            known = ", ".join(each for model, each in self._known if model == name)
            raise NotFound("version_not_found", f"{name} has no such version; it has: {known}")
        copied = self._known.get((name, shadow)) if shadow and shadow != version else None
        return Routed(self._known[name, version], copied)

    def names(self) -> list[str]:
        return sorted(self._aliases)

    def describe(self, name: str) -> dict[str, Any] | None:
        """A model as the API shows it; None for an unknown one."""
        if name not in self._aliases:
            return None
        return {
            "name": name,
            "aliases": {alias: describe_alias(routing) for alias, routing in self._aliases[name].items()},
            "versions": [self._shown(version) for version in self.versions(name)],
            "paused": name in self._paused.models,
        }

    def describe_version(self, name: str, version: str) -> dict[str, Any] | None:
        known = self._known.get((name, version))
        return None if known is None else {"name": name, **self._shown(known.version)}

    def versions(self, name: str | None = None) -> list[store.Version]:
        """The versions of a model, or all."""
        return [known.version for (model, _), known in self._known.items() if name in (None, model)]

    @property
    def paused(self) -> store.Paused:
        return self._paused

    def _shown(self, version: store.Version) -> dict[str, Any]:
        return {**_shown(version), "paused": f"{version.model}@{version.version}" in self._paused.versions}

    def _compiled(self, version: store.Version) -> Known:
        before = self._known.get((version.model, version.version))
        if version.input_schema is None:
            return Known(version, None)
        if before and before.version.input_schema == version.input_schema:
            return Known(version, before.validator)
        return Known(version, jsonschema_rs.validator_for(version.input_schema))


def describe_alias(routing: Routing) -> dict[str, Any]:
    return {"weights": dict(routing.weights), "shadow": routing.shadow}


def _faults(error: jsonschema_rs.ValidationError, at: str) -> list[dict[str, str]]:
    pointer = at + "".join(f"/{escape(str(step))}" for step in error.instance_path)
    match error.kind:
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties(unexpected=names):
            return [{"pointer": f"{pointer}/{escape(name)}", "detail": "not a field of the schema"} for name in names]
        case jsonschema_rs.ValidationErrorKind.Required(property=name):
            return [{"pointer": f"{pointer}/{escape(str(name))}", "detail": "is required"}]
    message = error.message
    return [{"pointer": pointer, "detail": message if len(message) <= 200 else message[:200] + "…"}]


def escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def _shown(version: store.Version) -> dict[str, Any]:
    return {
        "version": version.version,
        "pool": version.pool,
        "input_type": version.input_type,
        "output_type": version.output_type,
        "input_schema": version.input_schema,
        "output_schema": version.output_schema,
        "limits": {
            "max_batch": version.max_batch,
            "max_wait": version.max_wait,
            "max_cost": version.max_cost,
            "timeout": version.timeout,
        },
        "example": version.example,
        "workers": version.workers,
    }
