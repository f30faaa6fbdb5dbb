"""Pointers (RFC 6901) to the places of faults in JSON."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec


def escape(step: str) -> str:
    """A key as a step of a pointer."""
    return step.replace("~", "~0").replace("/", "~1")


def fault_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec says, and a pointer to the place: its `.items[0].name` is /items/0/name. Of what stands under a key
    of a mapping, `[...]`, which msgspec does not name, the pointer leads to the mapping."""
    message, at, path = str(error).rpartition(" - at `$")
    if not at:
        return path, ""
    return message, path.rstrip("`").partition("[...]")[0].replace(".", "/").replace("[", "/").replace("]", "")


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
