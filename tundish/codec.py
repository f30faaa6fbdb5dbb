"""Between bytes and a model's types: JSON for dataclasses, msgspec Structs, pydantic models and plain types; UTF-8 for
str; npy and safetensors for arrays and tensors (`tensors.py`); bytes as they are, and local files past the memory.

A codec is made once a type. numpy, torch and pydantic are imported only where a type comes from them.
"""

import dataclasses
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tundish import strictjson
from tundish.file import File
from tundish.media import JSON, OCTETS, TEXT, is_media_type
from tundish.model import DefinitionError, Model, types_of
from tundish.pointers import escape, fault_of, pointer_to


class DecodeError(ValueError):
    """An input that is not of the model's type; `pointer` (RFC 6901) leads to the fault in a JSON one."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


class EncodeError(ValueError):
    """An output that is not of the model's type, or cannot be written."""


class Codec(ABC):
    """Reads and writes one type."""

    content_type: str
    in_files = False  # whether bodies are Files, not bytes

    def schema(self) -> dict[str, Any] | None:
        """JSON Schema 2020-12; None for what is not JSON."""
        return None

    @abstractmethod
    def decode(self, body: Any) -> Any:
        """Of bytes, or of a File. Raises DecodeError."""

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """To bytes, or to a File. Raises EncodeError."""


def codec_for(type_: Any) -> Codec:
    """The codec of a type. Raises DefinitionError for one that has none."""
    if type_ is bytes:
        return _Bytes()
    if type_ is str:
        return _Text()
    if type_ is File:
        return _Files()
    pydantic = sys.modules.get("pydantic")
    if pydantic and isinstance(type_, type) and issubclass(type_, pydantic.BaseModel):
        return _Pydantic(type_)
    from tundish.tensors import tensors_codec

    return tensors_codec(type_) or _Json(type_)


def codecs_of(model: type[Model[Any, Any]]) -> tuple[Codec, Codec]:
    """What reads a model's inputs and what writes its outputs. Raises DefinitionError."""
    types = types_of(model)
    try:
        reads, writes = map(codec_for, types)
    except DefinitionError as error:
        raise DefinitionError(f"{model.__qualname__}: {error}") from error
    if model.output_type is not None:
        if not isinstance(writes, _Bytes | _Text | _Files):
            raise DefinitionError(f"{model.__qualname__}.output_type is for outputs of bytes, str or tundish.File")
        if model.output_type == JSON:
            raise DefinitionError(
                f"{model.__qualname__}.output_type is {JSON}; give a type of JSON, such as a dataclass"
            )
        writes.content_type = model.output_type
    return reads, writes


class _Bytes(Codec):
    content_type = OCTETS

    def decode(self, body: bytes) -> bytes:
        return body

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise EncodeError(f"the output is of type {type(value).__name__}, not bytes")
        return bytes(value)


class _Json(Codec):
    content_type = JSON

    def __init__(self, type_: Any) -> None:
        self._type = type_
        try:
            self._decoder = msgspec.json.Decoder(type_)
            self._lax = msgspec.json.Decoder(type_, strict=False)
            self._schema = _closed(msgspec.json.schema(type_))
        except (TypeError, NameError, RecursionError) as error:
            # What msgspec says before its last line is for who calls msgspec.
            why = str(error).strip().rpartition("\n")[2]
            raise DefinitionError(f"{type_!r} cannot be read from JSON: {why}") from error
        self._encode = msgspec.json.Encoder().encode
        named = isinstance(type_, type) and (dataclasses.is_dataclass(type_) or issubclass(type_, msgspec.Struct))
        self._class: type = type_ if named else object
        self._takes_raw = "RawType()" in repr(msgspec.inspect.type_info(type_))  # at any depth

    def schema(self) -> dict[str, Any]:
        return self._schema

    def decode(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            with suppress(msgspec.MsgspecError, OverflowError, RecursionError):
                value = self._decoder.decode(self._encode(_whole(msgspec.json.decode(body))))
                # That was all that was amiss, so this takes nothing else for something that it is not. It leaves a
                # float that is to be one as it was sent; an enum, or over 2**53, it does not read.
                with suppress(msgspec.ValidationError):
                    return self._lax.decode(body)
                return value
            raise DecodeError(*fault_of(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(str(error)) from error

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, self._class):
            raise EncodeError(
                f"the output is of type {type(value).__name__}, not {getattr(self._type, '__name__', self._type)}"
            )
        try:
            body = self._encode(value)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise EncodeError(self._unwritable(value) or str(error)) from error
        if self._takes_raw:
            try:
                strictjson.loads(body)
            except strictjson.InvalidJSON as error:
                raise EncodeError(f"the output holds a msgspec.Raw that is not JSON: {error}") from error
        # NaN and infinities are written as null: only a body that has one is searched for them.
        if b"null" in body and not _finite(value):
            raise EncodeError(_no_number(value))
        return body

    def _unwritable(self, value: Any) -> str | None:
        """Of what type the first part is that has no JSON, and where it lies."""
        with suppress(RecursionError):
            for at, leaf in _leaves(value):
                try:
                    self._encode(leaf)
                except TypeError:
                    what = f"{type(leaf).__module__}.{type(leaf).__qualname__}".removeprefix("builtins.")
                    place = f" at {at}" if at else ""
                    remedy = "; give its tolist()" if hasattr(leaf, "tolist") else ""
                    return f"the output holds a value of type {what}{place}, which has no JSON{remedy}"
                except (ValueError, OverflowError):
                    return None
        return None


class _Pydantic(Codec):
    content_type = JSON

    def __init__(self, type_: Any) -> None:
        import pydantic

        self._type = type_
        self._invalid = pydantic.ValidationError
        try:
            self._schema = _closed(type_.model_json_schema(ref_template="#/$defs/{model}"))
        except pydantic.errors.PydanticUserError as error:
            raise DefinitionError(f"{type_!r} cannot be read from JSON: {error.message}") from error

    def schema(self) -> dict[str, Any]:
        return self._schema

    def decode(self, body: bytes) -> Any:
        try:
            return self._type.model_validate_json(body)
        except self._invalid as error:
            # Its own text is a page on all that is amiss.
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise DecodeError(first["msg"], pointer_to(first["loc"], body)) from error

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, self._type):
            raise EncodeError(f"the output is of type {type(value).__name__}, not {self._type.__name__}")
        try:
            dumped, body = value.model_dump(), value.model_dump_json(by_alias=True)  # as the schema has it
        except ValueError as error:
            raise EncodeError(str(error)) from error
        if not _finite(dumped):
            raise EncodeError(_no_number(dumped))
        return bytes(body.encode())


class _Text(Codec):
    content_type = TEXT

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}

    def decode(self, body: bytes) -> str:
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"the text is not UTF-8: {error}") from error

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise EncodeError(f"the output is of type {type(value).__name__}, not str")
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"the output is no text: {error}") from error


class _Files(Codec):
    """Its bodies are Files themselves: whoever fetches and stores them streams them."""

    content_type = OCTETS
    in_files = True

    def decode(self, body: File) -> File:
        return body

    def encode(self, value: Any) -> File:
        if not isinstance(value, File):
            raise EncodeError(f"the output is of type {type(value).__name__}, not tundish.File")
        path, given = Path(value.path), value.content_type
        if not path.is_file():
            raise EncodeError(f"the output says that it lies in {path.name}, and there is no such file")
        if given is not None and not (isinstance(given, str) and is_media_type(given)):
            raise EncodeError(f"the output's content_type is {given!r}, not a media type such as image/png")
        return File(path, given)


def _whole(value: Any) -> Any:
    """With integers as JSON Schema has them: 1.0 is one, and msgspec takes it for a float."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return {key: _whole(each) for key, each in value.items()} if isinstance(value, dict) else value


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose objects take no fields that they do not name, and whose integers have 64 bits."""
    if "properties" in schema and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    if schema.get("type") == "integer":
        schema.setdefault("minimum", -(2**63))
        schema.setdefault("maximum", 2**63 - 1)
    for key, each in schema.items():
        if key in ("properties", "patternProperties", "$defs"):  # whose keys are names, of whatever an author likes
            _close(list(each.values()))
        elif key not in ("enum", "const", "default", "examples"):
            _close(each)
    return schema


def _close(part: Any) -> None:
    if isinstance(part, dict):
        _closed(part)
    elif isinstance(part, list):
        for each in part:
            _close(each)


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return value - value == 0
    inside = _inside(value)
    return inside is None or all(map(_finite, inside.values()))


def _no_number(value: Any) -> str:
    """Of what is not finite."""
    at = next(at for at, leaf in _leaves(value) if not _finite(leaf))
    return f"the output holds NaN or an infinite number{f' at {at}' if at else ''}"


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """What in a value holds nothing itself, each with a pointer to it."""
    inside = _inside(value)
    if inside is None:
        yield at, value
        return
    for step, each in inside.items():
        yield from _leaves(each, f"{at}/{escape(str(step))}")


def _inside(value: Any) -> dict[Any, Any] | None:
    """What a value holds, by where in it; None for what holds nothing."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    return None
