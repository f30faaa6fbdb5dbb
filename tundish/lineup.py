"""The catalog as a process holds it: which version a `model` means, and whether an input is one of its inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import jsonschema_rs
import msgspec

from tundish import store
from tundish.errors import NotFound, Refused, WrongType
from tundish.media import JSON, OCTETS, TEXT
from tundish.model import NAME
from tundish.pointers import escape
from tundish.routing import Routing

#: At most so many faults of an input are told.
FAULTS = 16
#: Values that an input holds at most for its faults to be looked for: each may be one, and takes 20 µs and 2 kB.
EXPLAINED = 20_000


@dataclass(frozen=True, slots=True)
class Known:
    """A version with its schema compiled; `validator` is None where any input is taken."""

    version: store.Version
    validator: jsonschema_rs.Validator | None

    @classmethod
    def of(cls, version: store.Version) -> "Known":
        schema = version.input_schema
        return cls(version, None if schema is None else jsonschema_rs.validator_for(schema))

    @property
    def in_json(self) -> bool:
        """Whether its inputs may stand within JSON: they are what is checked before a worker has them."""
        return self.version.input_type in (JSON, TEXT)

    def carried(self, value: object, raw: msgspec.Raw, at: str, most: int = EXPLAINED) -> tuple[bytes, str]:
        """An input that stands within JSON, checked, as a job carries it: its bytes, `raw` bit for bit but for a text,
        which is the string's characters; and their content type. Raises Refused as `check` does, and WrongType."""
        if not self.in_json:
            model, takes = self.version.model, self.version.input_type
            elsewhere = f"send it to /v1/models/{model}/jobs, or by an upload"
            takes = "bytes of any type" if takes == OCTETS else takes
            raise WrongType("unsupported_media_type", f"{model} takes {takes}, not JSON; {elsewhere}")
        self.check(value, at, most)
        return (str(value).encode(), TEXT) if self.version.input_type == TEXT else (bytes(raw), JSON)

    def check(self, value: object, at: str, most: int = EXPLAINED) -> None:
        """Raises Refused with a pointer (RFC 6901) to each fault, `at` before it; of over `most` values with `at`
        alone."""
        if self.validator is None or self.validator.is_valid(value):
            return
        if values(value, most) > most:
            errors = [{"pointer": at, "detail": f"its faults are not looked for, it holds over {most} values"}]
        else:
            found = (fault for error in self.validator.iter_errors(value) for fault in _faults(error, at))
            errors = list(islice(found, FAULTS))
        where = f"{errors[0]['pointer']}: " if errors[0]["pointer"] else ""
        detail = f"the input does not fit the schema of {self.version.model}: {where}{errors[0]['detail']}"
        raise Refused("invalid_input", detail, errors)


class Routed(NamedTuple):
    """The version that a job runs on, and the one that runs a copy of it."""

    known: Known
    shadow: Known | None


class Lineup:
    """Models, their versions and aliases, and what is paused, as they were last read."""

    def __init__(self) -> None:
        self.known: Mapping[tuple[str, str], Known] = {}
        self.aliases: Mapping[str, Mapping[str, Routing]] = {}
        self.paused = store.Paused()

    def update(self, read: store.Catalog) -> None:
        """A schema is compiled once."""
        self.known = {key: self._compiled(version) for key, version in read.versions.items()}
        self.aliases = read.aliases
        self.paused = read.paused

    def route(self, model: str, sticky_key: str | None = None) -> Routed:
        """The version that `name`, `name@version` or `name:alias` means, and the alias' shadow unless that is the same
        version; the alias' weights are drawn anew each time, or by `sticky_key`. Raises NotFound."""
        name, at, version = model.partition("@")
        name, colon, alias = name.partition(":")
        if name not in self.aliases:
            known = ", ".join(sorted(self.aliases)) or "none yet: start a worker"
            shown = name if NAME.fullmatch(name) else "of that name"
            raise NotFound("model_not_found", f"there is no model {shown}; there are: {known}")
        shadow: str | None = None
        if not at:
            routing = self.aliases[name].get(alias if colon else "default")
            if not routing:
                known = ", ".join(sorted(self.aliases[name]))
                raise NotFound("alias_not_found", f"{name} has no such alias; it has: {known}")
            version, shadow = routing.draw(sticky_key), routing.shadow
        if (colon and at) or (name, version) not in self.known:
            known = ", ".join(each for model, each in self.known if model == name)
            raise NotFound("version_not_found", f"{name} has no such version; it has: {known}")
        copied = self.known.get((name, shadow)) if shadow and shadow != version else None
        return Routed(self.known[name, version], copied)

    def _compiled(self, version: store.Version) -> Known:
        before = self.known.get((version.model, version.version))
        if before and before.version.input_schema == version.input_schema:
            return Known(version, before.validator)
        return Known.of(version)


def values(value: object, most: int) -> int:
    """How many values of JSON a value is, itself and those in it; counted no further than over `most`."""
    count, left = 0, [value]
    while left and count <= most:
        within = left.pop()
        count += 1
        if isinstance(within, dict):
            left += within.values()
        elif isinstance(within, list):
            left += within
    return count


def _faults(error: jsonschema_rs.ValidationError, at: str) -> list[dict[str, str]]:
    pointer = at + "".join(f"/{escape(str(step))}" for step in error.instance_path)
    match error.kind:
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties(unexpected=names):
            return [{"pointer": f"{pointer}/{escape(name)}", "detail": "not a field of the schema"} for name in names]
        case jsonschema_rs.ValidationErrorKind.Required(property=name):
            return [{"pointer": f"{pointer}/{escape(str(name))}", "detail": "is required"}]
    message = error.message
    return [{"pointer": pointer, "detail": message if len(message) <= 200 else message[:200] + "…"}]
