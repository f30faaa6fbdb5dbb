"""What a model takes: inputs as they arrive, checked, and as they are carried."""

from typing import NamedTuple

from api.http import parsed
from tundish import strictjson
from tundish.errors import BadRequest, Refused, WrongType
from tundish.lineup import Known
from tundish.media import JSON, OCTETS, TEXT, TYPE_MAX, charsets, essence, is_media_type

#: The charsets that a text may name: one in any other would be misread.
_UTF8 = {"utf-8", "utf8", "us-ascii"}


class Input(NamedTuple):
    """An input, or where the worker finds it."""

    body: bytes | None
    content_type: str
    url: str | None = None


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


def check_upload(known: Known, body: bytes) -> None:
    """What an upload holds, whose type was checked. Raises Refused."""
    try:
        if known.version.input_type == JSON:
            known.check(strictjson.loads(body), "")
        else:
            body.decode()
    except (strictjson.InvalidJSON, UnicodeDecodeError) as error:
        kind = "UTF-8" if isinstance(error, UnicodeDecodeError) else "JSON as it is taken here"
        fault = f"is not {kind}: {error}"
        raise Refused("invalid_input", f"the upload {fault}", [{"pointer": "/upload", "detail": fault}]) from error


def check_type(known: Known, content_type: str) -> None:
    """Raises WrongType."""
    if content_type and not is_media_type(content_type):  # a store of blobs may not carry it
        detail = f"{content_type[:TYPE_MAX]!r} is no media type of at most {TYPE_MAX} characters, such as image/png"
        raise WrongType("unsupported_media_type", detail)
    wanted = known.version.input_type
    misread = wanted == TEXT and ";" in content_type and not charsets(content_type) <= _UTF8
    if misread or (wanted != OCTETS and essence(content_type) != essence(wanted)):
        detail = f"{known.version.model} takes {wanted}; send that Content-Type"
        raise WrongType("unsupported_media_type", detail)
