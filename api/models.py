"""The catalog as the API holds it: which version a `model` means, and whether an input is one of its inputs."""

import asyncio
import logging
import random
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import jsonschema_rs

from tundish import store
from tundish.errors import NotFound, Refused, Unavailable

log = logging.getLogger(__name__)

#: Seconds between looks at the catalog.
EVERY = 2.0
#: At most so many faults of an input are told.
FAULTS = 16

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


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


class Models:
    """Everything in the catalog, at most EVERY seconds old."""

    def __init__(self, engine: store.AsyncEngine, seen_within: float) -> None:
        self._engine = engine
        self._seen_within = seen_within
        self._known: dict[tuple[str, str], Known] = {}
        self._aliases: dict[str, dict[str, dict[str, int]]] = {}
        self._loading = asyncio.Lock()

    async def run(self) -> None:
        """Keep up with the catalog until cancelled."""
        while True:
            try:
                await self.refresh()
            except Unavailable as error:
                log.warning("the catalog is not read: %s", error)
            await asyncio.sleep(EVERY)

    async def refresh(self) -> None:
        """Read the catalog now. Raises Unavailable."""
        async with self._loading:
            try:
                read = await store.run(self._engine, store.catalog, self._seen_within)
            except (store.StoreError, store.PoolTimeout, OSError) as error:
                raise Unavailable("unavailable", "the database does not answer; try again", retry_after=2) from error
            self._known = {key: self._compiled(version) for key, version in read.versions.items()}
            self._aliases = read.aliases

    async def resolve(self, model: str, sticky_key: str | None = None) -> Known:
        """The version that `name`, `name@version` or `name:alias` means; the alias' weights are drawn anew each time,
        or by `sticky_key`. Raises NotFound for what the catalog does not hold even after a fresh look."""
        try:
            return self._resolve(model, sticky_key)
        except NotFound:
            await self.refresh()
            return self._resolve(model, sticky_key)

    def _resolve(self, model: str, sticky_key: str | None) -> Known:
        name, at, version = model.partition("@")
        name, colon, alias = name.partition(":")
        if name not in self._aliases:
            known = ", ".join(sorted(self._aliases)) or "none yet: start a worker"
            shown = name if _NAME.fullmatch(name) else "of that name"
            raise NotFound("model_not_found", f"there is no model {shown}; there are: {known}")
        if not at:
            weights = self._aliases[name].get(alias if colon else "default")
            if not weights:
                known = ", ".join(sorted(self._aliases[name]))
                raise NotFound("alias_not_found", f"{name} has no such alias; it has: {known}")
            version = _draw(weights, sticky_key)
        if (colon and at) or (name, version) not in self._known:
            known = ", ".join(each for model, each in self._known if model == name)
            raise NotFound("version_not_found", f"{name} has no such version; it has: {known}")
        return self._known[name, version]

    def names(self) -> list[str]:
        return sorted(self._aliases)

    def describe(self, name: str) -> dict[str, Any] | None:
        """A model as the API shows it; None for an unknown one."""
        if name not in self._aliases:
            return None
        versions = [known.version for (model, _), known in self._known.items() if model == name]
        return {
            "name": name,
            "aliases": {alias: {"weights": weights, "shadow": None} for alias, weights in self._aliases[name].items()},
            "versions": [_shown(version) for version in versions],
        }

    def describe_version(self, name: str, version: str) -> dict[str, Any] | None:
        known = self._known.get((name, version))
        return None if known is None else {"name": name, **_shown(known.version)}

    def _compiled(self, version: store.Version) -> Known:
        before = self._known.get((version.model, version.version))
        if version.input_schema is None:
            return Known(version, None)
        if before and before.version.input_schema == version.input_schema:
            return Known(version, before.validator)
        return Known(version, jsonschema_rs.validator_for(version.input_schema))


def _draw(weights: dict[str, int], sticky_key: str | None) -> str:
    total = sum(weights.values())
    if sticky_key is None:
        at = int(random.random() * total)
    else:
        at = int.from_bytes(sha256(sticky_key.encode()).digest()[:8], "big") % total
    for version in sorted(weights):
        at -= weights[version]
        if at < 0:
            return version
    raise AssertionError("unreachable: `at` is below the sum of the weights")


def _faults(error: jsonschema_rs.ValidationError, at: str) -> list[dict[str, str]]:
    pointer = at + "".join(f"/{_escape(str(step))}" for step in error.instance_path)
    match error.kind:
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties(unexpected=names):
            return [{"pointer": f"{pointer}/{_escape(name)}", "detail": "not a field of the schema"} for name in names]
        case jsonschema_rs.ValidationErrorKind.Required(property=name):
            return [{"pointer": f"{pointer}/{_escape(str(name))}", "detail": "is required"}]
    message = error.message
    return [{"pointer": pointer, "detail": message if len(message) <= 200 else message[:200] + "…"}]


def _escape(step: str) -> str:
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
