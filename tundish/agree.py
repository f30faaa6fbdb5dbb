"""Whether two outputs agree: a job's and its shadow's. Pure.

Numbers are close where |a - b| <= ATOL + RTOL * |a|, as numpy.allclose(b, a) has it: another build of the same model on
another device differs by no more. Outputs of like shape have a largest difference, and a cosine over all their numbers;
anything else is told apart by equality.
"""

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tundish.media import JSON, NPY

RTOL = 1e-3
ATOL = 1e-6

Number = int | float


@dataclass(frozen=True, slots=True)
class Agreement:
    """`equal`: the same value; `close`: numbers apart by no more than rounding; `different`: anything else.
    `max_abs_diff` and `cosine` are None where the outputs are not numbers in like places."""

    verdict: Literal["equal", "close", "different"]
    max_abs_diff: float | None = None
    cosine: float | None = None


def agree(type_a: str | None, a: bytes, type_b: str | None, b: bytes) -> Agreement:
    """How output `b` agrees with `a`, by their content types."""
    if type_a != type_b:
        return Agreement("different")
    if a == b:
        return Agreement("equal", 0.0 if type_a in (JSON, NPY) else None)
    try:
        if type_a == JSON:
            return _of_values(json.loads(a), json.loads(b))
        if type_a == NPY:
            return _of_arrays(a, b)
    except Exception:  # bytes that are neither JSON nor an array raise almost anything, of numpy's readers too
        pass
    return Agreement("different")


def _of_values(a: object, b: object) -> Agreement:
    pairs: list[tuple[Number, Number]] = []
    if not all(_alike(a, b, pairs)):
        return Agreement("different")
    return _of_numbers([x for x, _ in pairs], [y for _, y in pairs])


def _alike(a: object, b: object, pairs: list[tuple[Number, Number]]) -> Iterator[bool]:
    """Whether everything but the numbers is equal; `pairs` gathers those."""
    if _is_number(a) and _is_number(b):
        pairs.append((a, b))  # type: ignore[arg-type]  # both are numbers
    elif isinstance(a, dict) and isinstance(b, dict):
        yield a.keys() == b.keys()
        for key in a.keys() & b.keys():
            yield from _alike(a[key], b[key], pairs)
    elif isinstance(a, list) and isinstance(b, list):
        yield len(a) == len(b)
        for each, other in zip(a, b, strict=False):
            yield from _alike(each, other, pairs)
    else:
        yield type(a) is type(b) and a == b


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_arrays(a: bytes, b: bytes) -> Agreement:
    import numpy

    x, y = (numpy.lib.format.read_array(io.BytesIO(each), allow_pickle=False) for each in (a, b))
    if x.shape != y.shape or x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        return Agreement("different")
    return _of_numbers(x.astype(float).ravel().tolist(), y.astype(float).ravel().tolist())


def _of_numbers(a: Sequence[Number], b: Sequence[Number]) -> Agreement:
    apart = [abs(x - y) for x, y in zip(a, b, strict=True)]
    largest = max(apart, default=0)
    close = all(far <= ATOL + RTOL * abs(x) for far, x in zip(apart, a, strict=True))
    verdict: Literal["equal", "close", "different"] = "different"
    if not largest:
        verdict = "equal"
    elif close:
        verdict = "close"
    return Agreement(verdict, float(largest), _cosine(a, b))


def _cosine(a: Sequence[Number], b: Sequence[Number]) -> float | None:
    """None where there is no angle: fewer than two numbers, or all of them 0."""
    lengths = math.hypot(*a) * math.hypot(*b)
    if len(a) < 2 or not 0 < lengths < math.inf:
        return None
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths
