"""Whether two outputs agree."""

import io
import json

import numpy
import pytest

from tundish.agree import agree
from tundish.media import JSON, NPY


def of_json(a: object, b: object) -> tuple[str, float | None, float | None]:
    found = agree(JSON, json.dumps(a).encode(), JSON, json.dumps(b).encode())
    return found.verdict, found.max_abs_diff, found.cosine and round(found.cosine, 6)


@pytest.mark.parametrize(
    ("a", "b", "agreed"),
    [
        ({"a": 1, "b": [True, None]}, {"b": [True, None], "a": 1}, ("equal", 0.0, None)),
        ({"v": [3.0, 4.0]}, {"v": [3, 4.0]}, ("equal", 0.0, 1.0)),
        ([3.0, 4.0], [3.0, 4.002], ("close", pytest.approx(0.002), 1.0)),
        ([3.0, 4.0], [4.0, 3.0], ("different", 1.0, 0.96)),
        ([1.0, 0.0], [-1.0, 0.0], ("different", 2.0, -1.0)),
        ([0.0, 0.0], [0.0, 1.0], ("different", 1.0, None)),
        ({"label": "cat", "p": 0.5}, {"label": "cat", "p": 0.5000001}, ("close", pytest.approx(1e-7), None)),
        ({"label": "cat", "p": 0.5}, {"label": "dog", "p": 0.5}, ("different", None, None)),
        ([1, 2], [1, 2, 3], ("different", None, None)),
        ({"a": 1}, {"b": 1}, ("different", None, None)),
        (1, True, ("different", None, None)),
        (1, None, ("different", None, None)),
    ],
)
def test_how_values_agree(a: object, b: object, agreed: tuple[object, ...]) -> None:
    assert of_json(a, b) == agreed


def npy(*values: float, dtype: str = "float32") -> bytes:
    file = io.BytesIO()
    numpy.save(file, numpy.array(values, dtype))
    return file.getvalue()


def test_how_arrays_and_bytes_agree() -> None:
    assert agree(NPY, npy(3, 4), NPY, npy(3, 4, dtype="int64")).verdict == "equal"
    assert agree(NPY, npy(3, 4), NPY, npy(3, 4.001)).verdict == "close"
    assert agree(NPY, npy(3, 4), NPY, npy(3, 4, 5)).verdict == "different"
    for no_array in (b"no array", b"", b"PK\x03\x04", npy(3, 4).replace(b"(2,), }", b"(2, (, }")):
        assert agree(NPY, npy(3, 4), NPY, no_array).verdict == "different"
    assert agree("image/png", b"x", "image/png", b"x").verdict == "equal"
    assert agree("image/png", b"x", "image/png", b"y").verdict == "different"
    assert agree(JSON, b"1", "text/plain", b"1").verdict == "different"
    deep = b"[" * 100_000
    assert agree(JSON, deep + b"1", JSON, deep + b"2").verdict == "different"
