"""The header of a safetensors file, held against the file: it says where each tensor lies, and is believed in nothing.

The rules are those of the format (https://github.com/huggingface/safetensors, `README.md` and `tensor.rs`): tensors lie
side by side from the header to the end, none over another, with no byte between.
"""

from collections.abc import Mapping
from typing import Any, BinaryIO

from tundish.artifact.refused import Refused
from tundish.strictjson import InvalidJSON, loads

#: Bytes of a header: some 100,000 tensors. The reference takes 100 MB, which a reader turns into gigabytes.
HEADER_MAX = 16 << 20
_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_MOST = 2**63 - 1


def check(file: BinaryIO, size: int) -> None:
    """Raises Refused for a file of `size` bytes that is no safetensors file. Reads its header alone."""
    length = header_length(file.read(8), size, HEADER_MAX)
    try:
        header = loads(file.read(length))
    except InvalidJSON as error:
        raise Refused(f"its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise Refused("its header is no JSON object")
    check_header(header, size - 8 - length)


def header_length(first: bytes, size: int, at_most: int) -> int:
    """The bytes of the header of a file of `size` bytes that begins with these 8. Raises Refused."""
    length = int.from_bytes(first[:8], "little")
    if len(first) < 8 or length > size - 8:
        raise Refused("it ends within its header")
    if length > at_most:
        raise Refused(f"its header is over {at_most} bytes")
    return length


def check_header(header: Mapping[str, Any], size: int) -> None:
    """Raises Refused where the tensors of a header do not fill `size` bytes."""
    tensors = {name: each for name, each in header.items() if name != "__metadata__"}
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(each, str) for each in metadata.values()):
        raise Refused("its metadata are not strings")
    end = 0
    for begin, until, name in sorted((*_range(name, each), name) for name, each in tensors.items()):
        if begin != end:
            raise Refused(f"tensor {name[:80]!r} begins at byte {begin}, and the one before it ends at {end}")
        end = until
    if end != size:
        raise Refused(f"its tensors take {end} bytes, and {size} follow")


def _range(name: str, tensor: Any) -> tuple[int, int]:
    """Where a tensor lies. Raises Refused where that is not what its type and shape take."""
    match tensor:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if (
            len(tensor) == 3
            and dtype in _BITS
            and all(type(each) is int and 0 <= each <= _MOST for each in (*shape, begin, end))
        ):
            bits = _BITS[dtype]
            for each in shape:
                if (bits := bits * each) > 8 * _MOST:
                    raise Refused(f"tensor {name[:80]!r} is larger than any memory")
            if bits != 8 * (end - begin):
                raise Refused(f"tensor {name[:80]!r} of {bits / 8:g} bytes lies in {end - begin}")
            return begin, end
    raise Refused(f"tensor {name[:80]!r} has no dtype, shape and data_offsets that are known")
