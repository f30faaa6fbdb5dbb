"""Media types: what a payload's bytes are (RFC 9110, 8.3)."""

import re

JSON = "application/json"
OCTETS = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
NPY = "application/x-npy"
SAFETENSORS = "application/vnd.safetensors"

_TOKEN = "[0-9A-Za-z!#$%&'*+.^_`|~-]+"
#: A value of a parameter without quotes, as clients send it: codecs=vp8,opus.
_BARE = "[!#-:<-~]+"
#: A pattern of a media type with its parameters (RFC 9110, 8.3.1), and no line end after them.
TYPE = rf"""^{_TOKEN}/{_TOKEN}([ \t]*;([ \t]*{_TOKEN}=({_BARE}|"([ !#-\[\]-~]|\\[ -~])*"))?)*[ \t]*$(?!\n)"""
TYPE_MAX = 255  # characters

_type = re.compile(TYPE)
_parameter = re.compile(rf';[ \t]*({_TOKEN})=(?:({_BARE})|"((?:[^"\\]|\\.)*)")')


def is_media_type(text: str) -> bool:
    return len(text) <= TYPE_MAX and _type.match(text) is not None


def essence(content_type: str) -> str:
    """A media type without its parameters, in small letters."""
    return content_type.partition(";")[0].strip().lower()


def charsets(content_type: str) -> set[str]:
    """What a media type says in `charset`, in small letters: one name as a rule, or none."""
    said = [found[1:] for found in _parameter.findall(content_type) if found[0].lower() == "charset"]
    return {(bare or re.sub(r"\\(.)", r"\1", quoted)).lower() for bare, quoted in said}
