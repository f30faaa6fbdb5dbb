"""What a model takes: inputs as they arrive, checked, and as they are carried."""

from typing import NamedTuple

import msgspec

from api.http import parsed
from tundish.errors import BadRequest, WrongType
from tundish.lineup import EXPLAINED, Known
from tundish.media import JSON, OCTETS, TEXT, essence

#: What is checked when it is submitted.
CHECKED = (JSON, TEXT)


class Input(NamedTuple):
    """An input, or where the worker finds it."""

    body: bytes | None
    content_type: str
    url: str | None = None


def of_json(known: Known, value: object, raw: msgspec.Raw, at: str, explained: int = EXPLAINED) -> Input:
    """An input within a JSON body, `at` a pointer to it: carried bit for bit, but for a text, which is the string's
    characters. Raises Refused, which explains up to so many values, and WrongType where the model takes neither."""
    version = known.version
    if version.input_type not in CHECKED:
        elsewhere = f"send it to /v1/models/{version.model}/jobs, or by an upload"
        taken = "bytes of any type" if version.input_type == OCTETS else version.input_type
        raise WrongType("unsupported_media_type", f"{version.model} takes {taken}, not JSON; {elsewhere}")
    known.check(value, at, explained)
    return Input(str(value).encode(), TEXT) if version.input_type == TEXT else Input(bytes(raw), JSON)


def of_body(known: Known, content_type: str, body: bytes) -> Input:
    """A body that is the input itself. Raises Refused, BadRequest and WrongType."""
    if known.version.input_type == JSON:
        known.check(parsed(content_type, body), "")
        return Input(body, JSON)
    check_type(known, content_type)
    if known.version.input_type == TEXT:
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest("invalid_text", f"the text is not UTF-8: {error}") from error
    return Input(body, content_type or OCTETS)


def check_type(known: Known, content_type: str) -> None:
    """Raises WrongType."""
    wanted = known.version.input_type
    if wanted != OCTETS and essence(content_type) != essence(wanted):
        detail = f"{known.version.model} takes {wanted}; send that Content-Type"
        raise WrongType("unsupported_media_type", detail)
