"""What a file of an artifact may hold: data that is read without running any of it.

A name says what a file must be, and its bytes are held against that: a zip or a pickle is refused whatever it is
called.
"""

import codecs
import math
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import BinaryIO

from tundish.artifact import checkpoint, safetensors
from tundish.artifact.pickles import LOOK, is_pickle
from tundish.artifact.refused import Refused

CHUNK = 1 << 20
#: Bytes from the end in which the end of a zip is found: its record, and the longest comment.
ZIP_END = checkpoint.END_SIZE + 65535

Check = Callable[[BinaryIO, int], None]

_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"PK\x07\x08": "a zip archive",
    b"\x80": "a pickle",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\xcf\xfa\xed\xfe": "a program",
    b"\xca\xfe\xba\xbe": "a program",
}


def kind_of(path: str, checkpoints: bool) -> Check:
    """What a file of this name is held against. Raises Refused where none of this name may be in an artifact."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in _KINDS:
        return _KINDS[suffix]
    if suffix not in _CHECKPOINTS:
        raise Refused(
            f"{path} is none of {' '.join(_KINDS)}: code comes with the image or package, and weights as data"
        )
    if not checkpoints:
        raise Refused(f"{path} is a pickle by its name; save it as safetensors, or push with --checkpoints")
    return checkpoint.check


def judge(path: str, file: BinaryIO, size: int, checkpoints: bool = False) -> None:
    """Raises Refused where the `size` bytes of `file` are not what its path says."""
    check = kind_of(path, checkpoints)
    head = b"" if check is checkpoint.check else file.read(LOOK)
    try:
        if head:
            file.seek(max(0, size - ZIP_END))
            if _ends_as_zip(file.read(ZIP_END)):
                raise Refused("it is a zip archive")
            if is_pickle(head):
                raise Refused("it is a pickle")
        file.seek(0)
        check(file, size)
    except Refused as refused:
        is_really = _named(head)
        raise Refused(f"{path} is refused: {f'it is {is_really}' if is_really else refused}") from refused


def _named(head: bytes) -> str | None:
    """What bytes that are not what they should be are instead."""
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def _ends_as_zip(tail: bytes) -> bool:
    """A zip is read from its end, whatever it begins with."""
    at = tail.rfind(checkpoint.END)
    while at >= 0:
        behind = at + checkpoint.END_SIZE
        if behind + int.from_bytes(tail[behind - 2 : behind], "little") == len(tail):  # the comment fills the rest
            return True
        at = tail.rfind(checkpoint.END, 0, at)
    return False


def _text(file: BinaryIO, size: int) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while piece := file.read(CHUNK):
            if "\0" in decoder.decode(piece):
                raise Refused("it is not a text: there is a NUL in it")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise Refused("it is not a text in UTF-8") from error


def _npy(file: BinaryIO, size: int) -> None:
    from numpy.lib import format

    try:
        read = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}[format.read_magic(file)]
        shape, _, dtype = read(file)
    except Exception as error:  # a header is read by Python's own tokenizer, and may raise all that it raises
        raise Refused(f"it is not an npy file: {error}") from error
    if dtype.hasobject:
        raise Refused("it is an npy file of Python objects, which are a pickle")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise Refused("it is an npy file whose header does not tell what follows")


def _sentencepiece(file: BinaryIO, size: int) -> None:
    if file.read(1) != b"\n":  # the first field of its protobuf, which are its pieces
        raise Refused("it is not a model of SentencePiece")


_TEXTS = (".json", ".jsonl", ".txt", ".md", ".csv", ".tsv", ".toml")
_KINDS: dict[str, Check] = {
    ".safetensors": safetensors.check,
    ".npy": _npy,
    ".model": _sentencepiece,
    **dict.fromkeys(_TEXTS, _text),
}
_CHECKPOINTS = (".pt", ".pth", ".bin", ".ckpt")
