"""Arrays and tensors as npy and safetensors, there and back, and bytes that lie about what follows."""

import io
import json
import struct
from types import new_class
from typing import Any

import numpy
import numpy.typing
import pytest
import safetensors.torch
import torch

from tundish import File, Model
from tundish.codec import DecodeError, EncodeError, codec_for, codecs_of
from tundish.model import DefinitionError, check
from tundish.tensors import HEADER_MAX

ARRAYS: dict[str, Any] = {
    "a": numpy.arange(6, dtype=numpy.float32).reshape(2, 3),
    "": numpy.array(7, dtype=numpy.int64),
}


def safetensors_file(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize("type_", [dict[str, numpy.ndarray], dict[str, numpy.typing.NDArray[numpy.float32]]])
def test_a_dictionary_of_arrays_is_safetensors(type_: Any) -> None:
    codec = codec_for(type_)
    assert (codec.content_type, codec.schema()) == ("application/vnd.safetensors", None)
    for value in (ARRAYS, {}, {"transposed": ARRAYS["a"].T}):
        found = codec.decode(codec.encode(value))
        assert found.keys() == value.keys()
        assert all((found[name] == value[name]).all() and found[name].dtype == value[name].dtype for name in value)


def test_a_dictionary_of_tensors_is_safetensors() -> None:
    codec = codec_for(dict[str, torch.Tensor])
    whole = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    value = {"whole": whole, "row": whole[0], "column": whole[:, 1], "grad": torch.ones(2, requires_grad=True)}
    found = codec.decode(codec.encode(value))
    assert found.keys() == value.keys()
    assert all(torch.equal(found[name], value[name]) and found[name].dtype == value[name].dtype for name in value)


@pytest.mark.parametrize("type_", [dict[str, numpy.ndarray], dict[str, torch.Tensor]])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "ends within"),
        (b"\0" * 7, "ends within"),
        (struct.pack("<Q", 2**63), "ends within"),
        (struct.pack("<Q", 100) + b"{}", "ends within"),
        (safetensors_file(b"{}" + b" " * HEADER_MAX), "over 1048576 bytes"),
        (safetensors_file(b"\xff\xfe"), "not a safetensors"),
        (safetensors_file([]), "not a safetensors"),
        (
            safetensors_file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4),
            "not a safetensors",
        ),
        (safetensors_file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "not a safetensors"),
        (
            safetensors_file({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}}, b"\0" * 4),
            "not a safetens",
        ),
        (
            safetensors_file({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
            "not a safetensors",
        ),
        (safetensors_file({}, b"more"), "not a safetensors"),
    ],
)
def test_a_safetensors_file_that_lies_is_refused(type_: Any, body: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        codec_for(type_).decode(body)


def test_a_type_that_numpy_does_not_know_is_refused() -> None:
    body = safetensors.torch.save({"a": torch.ones(2, dtype=torch.float8_e4m3fn)})
    assert codec_for(dict[str, torch.Tensor]).decode(body)["a"].dtype == torch.float8_e4m3fn
    with pytest.raises(DecodeError, match="not a safetensors"):
        codec_for(dict[str, numpy.ndarray]).decode(body)


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        (dict[str, numpy.ndarray], [1], "not a dictionary"),
        (dict[str, numpy.ndarray], {1: numpy.ones(1)}, "not a dictionary"),
        (dict[str, numpy.ndarray], {"a": [1]}, "'a' is of type list"),
        (dict[str, numpy.ndarray], {"a": numpy.array([{}])}, "not an array of numbers"),
        (dict[str, numpy.ndarray], {"a": numpy.array(["x"])}, "cannot be written"),
        (dict[str, numpy.ndarray], {"a": numpy.array([numpy.inf])}, "NaN"),
        (dict[str, torch.Tensor], {"a": numpy.ones(1)}, "'a' is of type ndarray"),
        (dict[str, torch.Tensor], {"a": torch.tensor([float("nan")], dtype=torch.bfloat16)}, "NaN"),
        (dict[str, torch.Tensor], {"a": torch.tensor([float("nan")]).to(torch.float8_e4m3fn)}, "NaN"),
    ],
)
def test_an_output_that_is_no_dictionary_of_tensors_is_refused(type_: Any, value: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        codec_for(type_).encode(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [(torch.ones(2, dtype=torch.bfloat16), "BFloat16; give it as .float()"), (torch.ones(2).to_sparse(), "Sparse")],
)
def test_a_tensor_that_numpy_does_not_know_is_refused(value: torch.Tensor, message: str) -> None:
    with pytest.raises(EncodeError, match=f"cannot be written as npy: .*{message}"):
        codec_for(torch.Tensor).encode(value)


def npy_header(text: str) -> bytes:
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", "(9223372036854775807, 8)", "(-1,)", "(4,)", "'x'", "(1e3,)", "((1,)"]
)
@pytest.mark.parametrize("type_", [numpy.ndarray, torch.Tensor])
def test_an_npy_file_that_lies_is_refused(type_: Any, shape: str) -> None:
    body = npy_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}") + b"\0" * 8
    with pytest.raises(DecodeError, match="not an npy file"):
        codec_for(type_).decode(body)


@pytest.mark.parametrize("descr", ["'|O'", "'<U3'", "'|V8'", "'<M8[s]'", "[('a', '<f8')]"])
def test_a_tensor_takes_numbers_alone(descr: str) -> None:
    body = npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}") + b"\0" * 16
    with pytest.raises(DecodeError):
        codec_for(torch.Tensor).decode(body)


def test_an_archive_of_arrays_is_refused() -> None:
    file = io.BytesIO()
    numpy.savez(file, a=numpy.ones(1))
    with pytest.raises(DecodeError, match="npz"):
        codec_for(numpy.ndarray).decode(file.getvalue())


def test_a_text_is_utf_8() -> None:
    codec = codec_for(str)
    assert (codec.content_type, codec.schema()) == ("text/plain; charset=utf-8", {"type": "string"})
    assert codec.decode(codec.encode("a\0grüße")) == "a\0grüße"
    with pytest.raises(DecodeError, match="not UTF-8"):
        codec.decode(b"\xff")
    for value, message in ((b"x", "not str"), ("\ud800", "no text")):
        with pytest.raises(EncodeError, match=message):
            codec.encode(value)


def test_an_output_type_is_kept_where_a_type_has_none_of_its_own() -> None:
    def model(writes: Any, output_type: Any) -> Any:
        attributes = {"name": "m", "version": "1", "predict": lambda self, batch: [], "output_type": output_type}
        return new_class("Made", (Model[bytes, writes],), exec_body=lambda namespace: namespace.update(attributes))

    for writes in (bytes, str, File):
        made = model(writes, "image/svg+xml; charset=utf-8")
        check(made)
        assert codecs_of(made)[1].content_type == "image/svg+xml; charset=utf-8"
    with pytest.raises(DefinitionError, match="is for outputs of bytes, str or"):
        codecs_of(model(dict[str, int], "text/csv"))
    with pytest.raises(DefinitionError, match="give a type of JSON"):
        codecs_of(model(bytes, "application/json"))
    for wrong in ("png", 1, "a/b\r\nx: y"):
        with pytest.raises(DefinitionError, match="set it to a media type"):
            check(model(bytes, wrong))
