"""Many rows in one statement: an array a column, in Postgres' binary form.

psycopg would dump the lists itself, which took 14 us a job of `record`; as literals Postgres took a quarter of such a
statement to read them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from struct import Struct
from typing import Any, ClassVar
from uuid import UUID

_int4 = Struct("!i").pack
_head = Struct("!iiiii").pack
_NULL = _int4(-1)
_SIXTEEN = _int4(16)


def _sized(value: bytes) -> bytes:
    return _int4(len(value)) + value


def _text(value: str) -> bytes:
    return _sized(value.encode())


def _uuid(value: UUID | str) -> bytes:
    return _SIXTEEN + (bytes.fromhex(value) if isinstance(value, str) else value.bytes)


class Array(bytes):
    """A one-dimensional array as a parameter. Each type of arrays is a class of its own, with its `oid`."""

    oid: ClassVar[int]


class _Type:
    """A type of elements: what writes one of them, with its size before it."""

    def __init__(self, element: int, array: int, write: Callable[[Any], bytes]) -> None:
        self.write = write
        self.array: type[Array] = type("Array", (Array,), {"oid": array})
        self.head = lru_cache(64)(lambda count: _head(1, 1, element, count, 1))
        self.nulls = lru_cache(64)(lambda count: self.array(self.head(count) + _NULL * count))


_TYPES = {
    "uuid": _Type(2950, 2951, _uuid),
    "int2": _Type(21, 1005, partial(Struct("!ih").pack, 2)),
    "int4": _Type(23, 1007, partial(Struct("!ii").pack, 4)),
    "int8": _Type(20, 1016, partial(Struct("!iq").pack, 8)),
    "float8": _Type(701, 1022, partial(Struct("!id").pack, 8)),
    "text": _Type(25, 1009, _text),
    "bytea": _Type(17, 1001, _sized),
}
#: The classes that `array` makes.
ARRAYS = [each.array for each in _TYPES.values()]


def array(type: str, values: Sequence[Any]) -> Array:
    """A one-dimensional array of a Postgres type; None is NULL."""
    of, count = _TYPES[type], len(values)
    write = of.write
    if count and (first := values[0]) == values[-1] and values.count(first) == count:  # as in most columns
        return of.nulls(count) if first is None else of.array(of.head(count) + write(first) * count)
    return of.array(of.head(count) + b"".join([_NULL if value is None else write(value) for value in values]))


class Rows:
    """Rows of objects with attributes `columns`, name to Postgres type, as one set of a statement."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._values = attrgetter(*columns)
        self.names = ", ".join(columns)
        arrays = ", ".join(f"CAST(:{name} AS {type}[])" for name, type in columns.items())
        self.sql = f"unnest({arrays}) AS given({self.names})"

    def given(self, rows: Sequence[Any]) -> dict[str, Array]:
        """The parameters of the statement."""
        values = zip(*map(self._values, rows), strict=True) if rows else ([] for _ in self._columns)
        return {name: array(type, each) for (name, type), each in zip(self._columns.items(), values, strict=True)}
