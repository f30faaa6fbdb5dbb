"""Pointers (RFC 6901) to the places of faults in JSON."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

#: Before a name and a backtick, msgspec's words for a field that its type does not have.
UNKNOWN = "Object contains unknown field `"

#: By msgspec's words for what it got.
_TYPES: dict[str, type] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def escape(step: str) -> str:
    """A key as a step of a pointer."""
    return step.replace("~", "~0").replace("/", "~1")


def fault_of(error: msgspec.ValidationError, value: object = None) -> tuple[str, str]:
    """What msgspec says, and a pointer to the place: its `.items[0].name` is /items/0/name. Of what stands under a key
    of a mapping, `[...]`, which msgspec does not name, the pointer leads to the mapping, unless `value`, which does not
    fit, shows the key."""
    text = str(error)
    message, at, path = text.rpartition(" - at `$")
    # The name of an unknown field may end as a place does.
    named = text.startswith(UNKNOWN) and isinstance(value, dict) and text[len(UNKNOWN) : -1] in value
    if not at or named:
        return text, ""
    within, mapping, below = path.removesuffix("`").partition("[...]")
    pointer = within.replace(".", "/").replace("[", "/").replace("]", "")
    return message, pointer + (_key(message, value, pointer) if mapping and not below else "")


def _key(message: str, value: Any, pointer: str) -> str:
    """The step to what msgspec got: the first of its type in the mapping, for all before it was taken."""
    got = _TYPES.get(message.rpartition(", got `")[2].removesuffix("`"))
    try:
        for step in pointer.split("/")[1:]:
            value = value[int(step) if isinstance(value, list) else step]
    except (LookupError, TypeError, ValueError):  # a field's name has a dot or a bracket
        return ""
    within = value.items() if isinstance(value, dict) else ()
    return next((f"/{escape(key)}" for key, each in within if type(each) is got), "")


def pointer_to(steps: Sequence[str | int], body: bytes) -> str:
    """A pointer to a place in JSON, as far as the steps lead there: pydantic's name the members of a union too, and
    what is missing."""
    pointer = ""
    at: Any = json.loads(body) if steps else None  # pydantic reads NaN too
    for step in steps:
        try:
            at = at[step]
        except (LookupError, TypeError):
            break
        pointer += f"/{escape(str(step))}"
    return pointer
