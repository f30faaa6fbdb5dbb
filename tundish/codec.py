"""Between bytes and a model's types: JSON for dataclasses, msgspec Structs, pydantic models and plain types; npy for
numpy arrays and torch tensors; bytes as they are.

A codec is made once a type. numpy, torch and pydantic are imported only where a type comes from them.
"""

import dataclasses
import io
import sys
from abc import ABC, abstractmethod
from typing import Any

import msgspec

from tundish.model import DefinitionError

JSON = "application/json"
OCTETS = "application/octet-stream"
NPY = "application/x-npy"


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

    def schema(self) -> dict[str, Any] | None:
        """JSON Schema 2020-12; None for what is not JSON."""
        return None

    @abstractmethod
    def decode(self, body: bytes) -> Any:
        """Raises DecodeError."""

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """Raises EncodeError."""


def codec_for(type_: Any) -> Codec:
    """The codec of a type. Raises DefinitionError for one that has none."""
    if type_ is bytes:
        return _Bytes()
    pydantic = sys.modules.get("pydantic")
    if pydantic and isinstance(type_, type) and issubclass(type_, pydantic.BaseModel):
        return _Pydantic(type_)
    module = getattr(type_, "__module__", "").partition(".")[0]
    if module in ("numpy", "torch") or (getattr(type_, "__origin__", None) is not None and _is_array(type_)):
        return _Npy(torch=module == "torch")
    return _Json(type_)


def _is_array(type_: Any) -> bool:
    return str(getattr(type_.__origin__, "__module__", "")).partition(".")[0] == "numpy"


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
            self._schema = _closed(msgspec.json.schema(type_))
        except (TypeError, NameError, RecursionError) as error:
            raise DefinitionError(f"{type_!r} cannot be read from JSON: {error}") from error
        self._encode = msgspec.json.Encoder().encode
        self._dataclass: type = type_ if dataclasses.is_dataclass(type_) else object  # type: ignore[assignment]  # mypy takes an instance for possible

    def schema(self) -> dict[str, Any]:
        return self._schema

    def decode(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            raise DecodeError(message, _pointer(path.rstrip("`"))) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(str(error)) from error

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, self._dataclass):
            raise EncodeError(
                f"the output is of type {type(value).__name__}, not {getattr(self._type, '__name__', self._type)}"
            )
        try:
            body = self._encode(value)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise EncodeError(str(error)) from error
        # NaN and infinities are written as null: only a body that has one is searched for them.
        if b"null" in body and not _finite(value):
            raise EncodeError("the output holds NaN or an infinite number")
        return body


class _Pydantic(Codec):
    content_type = JSON

    def __init__(self, type_: Any) -> None:
        self._type = type_
        self._schema = _closed(type_.model_json_schema(ref_template="#/$defs/{model}"))

    def schema(self) -> dict[str, Any]:
        return self._schema

    def decode(self, body: bytes) -> Any:
        try:
            return self._type.model_validate_json(body)
        except ValueError as error:
            raise DecodeError(str(error)) from error

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, self._type):
            raise EncodeError(f"the output is of type {type(value).__name__}, not {self._type.__name__}")
        if not _finite(value.model_dump()):
            raise EncodeError("the output holds NaN or an infinite number")
        return bytes(value.model_dump_json().encode())


class _Npy(Codec):
    content_type = NPY

    def __init__(self, torch: bool) -> None:
        self._torch = torch

    def decode(self, body: bytes) -> Any:
        import numpy

        try:
            array = numpy.load(io.BytesIO(body), allow_pickle=False)
        except (ValueError, EOFError, OSError, SyntaxError) as error:
            raise DecodeError(f"not an npy file: {error}") from error
        if not isinstance(array, numpy.ndarray):
            raise DecodeError("an npz archive, not an npy file")
        if not self._torch:
            return array
        import torch

        try:
            return torch.from_numpy(array)
        except TypeError as error:
            raise DecodeError(str(error)) from error

    def encode(self, value: Any) -> bytes:
        import numpy

        array = value.detach().cpu().numpy() if self._torch and hasattr(value, "detach") else value
        if not isinstance(array, numpy.ndarray) or array.dtype.hasobject:
            raise EncodeError(f"the output is of type {type(value).__name__}, not an array of numbers")
        if array.dtype.kind in "fc" and not numpy.isfinite(array).all():
            raise EncodeError("the output holds NaN or an infinite number")
        file = io.BytesIO()
        numpy.save(file, array, allow_pickle=False)
        return file.getvalue()


def _pointer(path: str) -> str:
    """msgspec's `.items[0].name` as /items/0/name."""
    return path.replace(".", "/").replace("[", "/").replace("]", "")


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose objects take no fields that they do not name, and whose integers have 64 bits."""
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        if schema.get("type") == "integer":
            schema.setdefault("minimum", -(2**63))
            schema.setdefault("maximum", 2**63 - 1)
        for key, each in schema.items():
            if key not in ("enum", "const", "default", "examples"):
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
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_finite, value))
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if dataclasses.is_dataclass(value):
        return all(_finite(getattr(value, each.name)) for each in dataclasses.fields(value))
    if isinstance(value, msgspec.Struct):
        return all(_finite(getattr(value, name)) for name in value.__struct_fields__)
    return True
