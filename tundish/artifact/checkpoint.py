"""Files of torch.save: pickles, which are taken only where they were asked for, and read only by weights_only=True.

Such a file is a zip of known members, none compressed. So none inflates, and TorchScript and `.pt2`, which are code,
have members that are not known.
"""

import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from tundish.artifact.refused import Refused

#: Bytes of a zip's directory, and of the pickle of names and shapes beside the tensors.
DIRECTORY_MAX = 64 << 20
#: What a zip begins with, and what its last record does (APPNOTE.TXT 4.3.7 and 4.3.16).
_FIRST, END = b"PK\x03\x04", b"PK\x05\x06"
#: Bytes of its last records, less the comment behind them.
END_SIZE, _END64_SIZE, _LOCATOR_SIZE = 22, 56, 20
_MEMBER = re.compile(
    r"[^/\\]{1,255}/(data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
_SCRIPT = re.compile(r"[^/]+/(code/.*|constants\.pkl)")


def load(path: Path, device: str = "cpu") -> Any:
    """What torch.save has written: tensors, in dictionaries and lists. Raises Refused, and what torch.load does: there
    is no other way than weights_only=True."""
    with path.open("rb") as file:
        check(file, path.stat().st_size)
        file.seek(0)
        import torch

        return torch.load(file, map_location=device, weights_only=True)


def check(file: BinaryIO, size: int) -> None:
    """Raises Refused for a file of `size` bytes that torch.save has not written. Reads its directory alone."""
    if file.read(4) != _FIRST:
        raise Refused("it is not of torch.save, or older than torch 1.6: load it where you trust it, and save it anew")
    if _directory_length(file, size) > DIRECTORY_MAX:
        raise Refused(f"the directory of its archive is over {DIRECTORY_MAX:,} bytes")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, UnicodeDecodeError) as error:
        raise Refused(f"its archive cannot be read: {error}") from error
    _check_members(members, size)


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    names = [each.filename for each in members]
    if any(map(_SCRIPT.fullmatch, names)):
        raise Refused("it is TorchScript, which is code")
    for each in members:
        if not _MEMBER.fullmatch(each.filename):
            raise Refused(f"it has {each.filename[:80]!r} in it, which torch.save does not write")
        if each.compress_type != zipfile.ZIP_STORED or each.file_size != each.compress_size or each.flag_bits & 1:
            raise Refused(f"{each.filename[:80]!r} in it is compressed, which torch.save does not do")
    if len(set(names)) < len(names) or len({name.partition("/")[0] for name in names}) != 1:
        raise Refused("the names in its archive are not those of torch.save")
    if sum(each.file_size for each in members) > size:
        raise Refused("its archive holds more than it is large: its members lie over each other")
    pickled = [each.file_size for each in members if each.filename.endswith("/data.pkl")]
    if len(pickled) != 1 or pickled[0] > DIRECTORY_MAX:
        raise Refused(f"it has no data.pkl of {DIRECTORY_MAX:,} bytes at most")


def _directory_length(file: BinaryIO, size: int) -> int:
    """As the end of the archive says it, where torch.save has written it: last, and with no comment."""
    end = _at(file, size - END_SIZE, END_SIZE)
    if not end.startswith(END):
        raise Refused("it does not end as an archive of torch.save")
    length = int.from_bytes(end[12:16], "little")
    if length < 0xFFFFFFFF:
        return length
    end64 = _at(file, size - END_SIZE - _LOCATOR_SIZE - _END64_SIZE, _END64_SIZE)
    return int.from_bytes(end64[40:48], "little")


def _at(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(max(0, at))
    return file.read(length)
