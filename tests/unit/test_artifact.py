"""What may be in an artifact: names, bytes, and the list of both."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from tundish.artifact import Listed, Manifest, Refused, checkpoint
from tundish.artifact.manifest import FILE_BYTES_MAX, FILES_MAX
from tundish.artifact.pickles import LOOK, is_pickle
from tundish.artifact.push import read
from tundish.artifact.safetensors import HEADER_MAX
from tundish.artifact.screen import judge


def tensors(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(shape: list[Any], begin: Any, end: Any, dtype: str = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return file.getvalue()


def npy(array: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    numpy.save(file, array, **how)
    return file.getvalue()


def saved(value: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


def overlapping(members: int) -> bytes:
    """A bomb with nothing compressed: each member is the same megabyte."""
    body = bytearray(zipped({f"a/data/{number}": b"" for number in range(members)} | {"a/data.pkl": b"N." * 500_000}))
    at = body.index(b"PK\x01\x02")
    for _ in range(members):
        struct.pack_into("<II", body, at + 20, 1_000_000, 1_000_000)
        at = body.index(b"PK\x01\x02", at + 4)
    return bytes(body)


class Runs:
    def __reduce__(self) -> Any:
        return print, ("a pickle was run",)


ZIP = zipped({"x": b"y"})
ONE = tensors({"a": tensor([2], 0, 8)}, b"\0" * 8)
WEIGHTS = saved({"a": torch.ones(3)})
MEMBERS = {
    name: zipfile.ZipFile(io.BytesIO(WEIGHTS)).read(name) for name in zipfile.ZipFile(io.BytesIO(WEIGHTS)).namelist()
}
COMPRESSED = zipped({"a/data.pkl": b"N.", "a/data/0": b"\0" * 10_000_000}, zipfile.ZIP_DEFLATED)

GOOD = {
    "one.safetensors": ONE,
    "none.safetensors": tensors({}),
    "empty.safetensors": tensors(
        {"a": tensor([0], 0, 0), "b": tensor([2**40, 0], 0, 0), "c": tensor([], 0, 4)}, b"\0" * 4
    ),
    "narrow.safetensors": tensors({"a": tensor([4], 0, 3, "F6_E2M3"), "b": tensor([2], 3, 4, "F4")}, b"\0" * 4),
    "noted.safetensors": tensors({"__metadata__": {"format": "pt"}, "a": tensor([1], 0, 4)}, b"\0" * 4),
    # Its length begins as a pickle does: 0x0280.
    "long.safetensors": tensors(b"{}".ljust(0x280)),
    "array.npy": npy(numpy.ones((2, 3))),
    "fortran.npy": npy(numpy.asfortranarray(numpy.ones((2, 3)))),
    "vocab.txt": "cat\ndog\nRun\nüber\n".encode(),
    "cut.txt": b"a" * ((1 << 20) - 1) + "ü".encode(),
    "empty.json": b"",
    "readme.md": b"# I like\n(these)\n.\n",
    "tokens.model": b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02",
}
BAD: dict[str, tuple[str, bytes, str]] = {
    "no length": ("a.safetensors", b"", "ends within its header"),
    "half a length": ("a.safetensors", b"\0" * 7, "ends within its header"),
    "a length beyond the file": ("a.safetensors", struct.pack("<Q", 100) + b"{}", "ends within its header"),
    "the greatest length": ("a.safetensors", struct.pack("<Q", 2**64 - 1) + b"{}", "ends within its header"),
    "a huge header": ("a.safetensors", tensors(b"{}".ljust(HEADER_MAX + 1)), "over 16777216 bytes"),
    "no JSON": ("a.safetensors", tensors(b"{'a': 1}"), "no JSON"),
    "no UTF-8": ("a.safetensors", tensors(b'{"\xff": 1}'), "no JSON"),
    "deep JSON": ("a.safetensors", tensors(b"[" * 100_000), "no JSON"),
    "NaN": ("a.safetensors", tensors(b'{"a": NaN}'), "no JSON"),
    "a list": ("a.safetensors", tensors([]), "no JSON object"),
    "a key given twice": (
        "a.safetensors",
        tensors(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "duplicate key",
    ),
    "metadata that are numbers": ("a.safetensors", tensors({"__metadata__": {"a": 1}}), "not strings"),
    "metadata that are a list": ("a.safetensors", tensors({"__metadata__": []}), "not strings"),
    "a tensor that is none": ("a.safetensors", tensors({"a": 1}), "no dtype"),
    "a type that is not known": ("a.safetensors", tensors({"a": tensor([1], 0, 8, "PY")}, b"\0" * 8), "no dtype"),
    "a field more": ("a.safetensors", tensors({"a": tensor([2], 0, 8, code="x")}, b"\0" * 8), "no dtype"),
    "a shape that is negative": ("a.safetensors", tensors({"a": tensor([-2, -1], 0, 8)}, b"\0" * 8), "no dtype"),
    "a shape of a fraction": ("a.safetensors", tensors({"a": tensor([2.0], 0, 8)}, b"\0" * 8), "no dtype"),
    "a shape of true": ("a.safetensors", tensors({"a": tensor([True], 0, 4)}, b"\0" * 4), "no dtype"),
    "an offset of true": ("a.safetensors", tensors({"a": tensor([0], True, True)}), "no dtype"),
    "an offset below 0": ("a.safetensors", tensors({"a": tensor([2], -8, 0)}), "no dtype"),
    "a shape past any memory": ("a.safetensors", tensors({"a": tensor([2**62] * 9, 0, 8)}, b"\0" * 8), "larger than"),
    "a shape that wraps round": ("a.safetensors", tensors({"a": tensor([2**32, 2**32], 0, 0)}), "larger than"),
    "a range that is too short": ("a.safetensors", tensors({"a": tensor([3], 0, 8)}, b"\0" * 8), "lies in 8"),
    "a range that ends before it begins": ("a.safetensors", tensors({"a": tensor([1], 8, 4)}, b"\0" * 8), "lies in -4"),
    "bits that fill no byte": ("a.safetensors", tensors({"a": tensor([1], 0, 1, "F4")}, b"\0"), "lies in 1"),
    "tensors over each other": (
        "a.safetensors", tensors({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, b"\0" * 12), "ends at 8",
    ),
    "a gap between tensors": (
        "a.safetensors", tensors({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, b"\0" * 12), "ends at 4",
    ),
    "bytes before the first": ("a.safetensors", tensors({"a": tensor([1], 4, 8)}, b"\0" * 8), "begins at byte 4"),
    "bytes after the last": ("a.safetensors", ONE + b"more", "8 bytes, and 12 follow"),
    "bytes that are not there": ("a.safetensors", ONE[:-1], "8 bytes, and 7 follow"),
    "tensors and a zip": (
        "a.safetensors", tensors({"a": tensor([len(ZIP)], 0, len(ZIP), "U8")}, ZIP), "a zip",
    ),
    "a zip": ("a.safetensors", ZIP, "a zip archive"),
    "a zip that is a text": ("a.txt", ZIP, "a zip archive"),
    "a zip behind a text": ("a.txt", b"text" + ZIP, "a zip archive"),
    "a zip with a comment": ("a.json", zipped({})[:-2] + b"\x05\0hello", "a zip archive"),
    "TorchScript as a model": ("a.model", zipped({"a/code/x.py": b""}), "a zip archive"),
    "weights by another name": ("a.safetensors", WEIGHTS, "a zip archive"),
    **{
        f"a pickle of protocol {protocol} as {suffix}": (f"a{suffix}", pickle.dumps(Runs(), protocol), "a pickle")
        for protocol in range(6)
        for suffix in (".safetensors", ".txt", ".json", ".model", ".npy")
    },
    "a pickle with no call": ("a.txt", pickle.dumps([1, {"a": "b"}], 0), "a pickle"),
    "a pickle that breaks behind its call": ("a.txt", pickle.dumps(Runs(), 0)[:-1] + b"?", "a pickle"),
    "a pickle behind what it pops": ("a.txt", b"N0" * LOOK + pickle.dumps(Runs(), 0), "a pickle"),
    "an old file of torch": ("a.model", saved({}, _use_new_zipfile_serialization=False), "a pickle"),
    "objects of numpy": ("a.npy", npy(numpy.array([{}]), allow_pickle=True), "Python objects"),
    "an archive of numpy": ("a.npy", zipped({"a.npy": npy(numpy.ones(1))}), "a zip archive"),
    "an array cut short": ("a.npy", npy(numpy.ones(3))[:-1], "does not tell what follows"),
    "an array and more": ("a.npy", npy(numpy.ones(3)) + b"x", "does not tell what follows"),
    "an array whose header runs": (
        "a.npy", b"\x93NUMPY\x01\0" + struct.pack("<H", 118) + b"__import__('os')".ljust(117) + b"\n", "not an npy",
    ),
    "HDF5": ("a.json", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "an HDF5 file"),
    "gzip": ("a.txt", b"\x1f\x8b\x08\0\0\0", "a gzip file"),
    "a tar archive": ("a.csv", tarred(), "a tar archive"),
    "a program": ("a.model", b"\x7fELF\x02", "a program"),
    "a NUL": ("a.txt", b"a\0b", "a NUL"),
    "half a letter": ("a.txt", "ü".encode()[:1], "UTF-8"),
    "a model of something else": ("a.model", b"\x08\x01", "SentencePiece"),
    "a model of nothing": ("a.model", b"", "SentencePiece"),
}  # fmt: skip
BAD_CHECKPOINTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not of torch.save"),
    "a pickle": (pickle.dumps(Runs()), "not of torch.save"),
    "one of before torch 1.6": (saved({}, _use_new_zipfile_serialization=False), "older than torch 1.6"),
    "TorchScript": (zipped(MEMBERS | {"archive/code/__torch__.py": b""}), "TorchScript"),
    "TorchScript's constants": (zipped(MEMBERS | {"archive/constants.pkl": b""}), "TorchScript"),
    "a pt2": (zipped(MEMBERS | {"archive/models/model.json": b"{}"}), "which torch.save does not write"),
    "a member that leads out": (zipped(MEMBERS | {"../data/0": b""}), "names in its archive"),
    "a member that leads far out": (zipped(MEMBERS | {"archive/../../x": b""}), "which torch.save does not write"),
    "a member from the root": (zipped(MEMBERS | {"/data/0": b""}), "which torch.save does not write"),
    "a member in another folder": (zipped(MEMBERS | {"other/data/0": b""}), "names in its archive"),
    "a bomb": (COMPRESSED, "is compressed"),
    "a bomb of members over each other": (overlapping(50), "over each other"),
    "no pickle": (zipped({"archive/version": b"3\n"}), "no data.pkl"),
    "an end that is cut off": (WEIGHTS[:-1], "does not end as"),
    "a comment": (WEIGHTS[:-2] + b"\x01\0x", "does not end as"),
    "a directory that is cut out": (WEIGHTS[:100] + WEIGHTS[-22:], "cannot be read"),
    "a directory that is huge": (WEIGHTS[:-10] + struct.pack("<I", 2**31) + WEIGHTS[-6:], "over 67,108,864 bytes"),
}  # fmt: skip


def refusal(name: str, body: bytes) -> str | None:
    """Why a file is refused, if it is."""
    try:
        judge(name, io.BytesIO(body), len(body))
    except Refused as refused:
        return str(refused)
    return None


@pytest.mark.parametrize("name", GOOD)
def test_data_is_taken(name: str) -> None:
    assert refusal(name, GOOD[name]) is None


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_data_is_refused(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, body, message = BAD[what]
    with pytest.raises(Refused, match=rf"{name} is refused: .*{message}"):
        judge(name, io.BytesIO(body), len(body))
    assert not capsys.readouterr().out


def test_a_checkpoint_is_taken_where_it_is_asked_for(tmp_path: Path) -> None:
    judge("a.pt", io.BytesIO(WEIGHTS), len(WEIGHTS), checkpoints=True)
    (tmp_path / "a.pt").write_bytes(WEIGHTS)
    assert torch.equal(checkpoint.load(tmp_path / "a.pt")["a"], torch.ones(3))
    for suffix in (".pt", ".pth", ".bin", ".ckpt"):
        with pytest.raises(Refused, match="push with --checkpoints"):
            judge(f"a{suffix}", io.BytesIO(WEIGHTS), len(WEIGHTS))


@pytest.mark.parametrize("what", BAD_CHECKPOINTS)
def test_a_checkpoint_that_torch_has_not_saved_is_refused(what: str, tmp_path: Path) -> None:
    body, message = BAD_CHECKPOINTS[what]
    with pytest.raises(Refused, match=message):
        judge("a.pt", io.BytesIO(body), len(body), checkpoints=True)
    (tmp_path / "a.pt").write_bytes(body)
    with pytest.raises(Refused, match=message):
        checkpoint.load(tmp_path / "a.pt")


def test_a_checkpoint_that_calls_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.pt").write_bytes(saved({"a": Runs()}))
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        checkpoint.load(tmp_path / "a.pt")
    assert not capsys.readouterr().out


@given(
    st.integers(0, 5), st.recursive(st.none() | st.integers() | st.text(), lambda each: st.lists(each), max_leaves=9)
)
def test_every_pickle_is_known_as_one(protocol: int, value: Any) -> None:
    assert is_pickle(pickle.dumps(value, protocol))


_DIMENSION = st.integers(-1, 3) | st.sampled_from([True, 1.0, 2**31, 2**63, "1"])
_TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "F16", "I64", "X"]),
        "shape": st.lists(_DIMENSION, max_size=3),
        "data_offsets": st.lists(st.integers(-1, 12), min_size=1, max_size=3),
    }
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "__metadata__"]), _TENSOR | st.none(), max_size=3),
    st.integers(0, 12),
)
def test_the_reference_takes_every_header_that_is_taken(header: dict[str, Any], size: int) -> None:
    body = tensors(header, b"\0" * size)
    if refusal("a.safetensors", body) is None:
        assert safetensors.numpy.load(body).keys() == header.keys() - {"__metadata__"}


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=4), st.sampled_from(["u1", "<f4", "<i8", "?"]))
def test_every_file_that_the_reference_writes_is_taken(shapes: list[list[int]], dtype: str) -> None:
    body = safetensors.numpy.save({f"tensor {n}": numpy.zeros(shape, dtype) for n, shape in enumerate(shapes)})
    assert refusal("a.safetensors", body) is None


@pytest.mark.parametrize(
    "path",
    [
        "../a.txt", "a/../b.txt", "/a.txt", "a//b.txt", "./a.txt", "a\\b.txt", "..\\a.txt", "a\0.txt", "a\n.txt", "",
        ".txt", ".git/a.txt", "a./b.txt", "a /b.txt", "a.txt ", "C:a.txt", "ü.txt", "a.txt/", "a:b.txt",
        "a" * 300 + ".txt",
    ],
)  # fmt: skip
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(Refused, match="is no name for a file"):
        Manifest.of([listed(path)])


@pytest.mark.parametrize(
    "path", ["a.py", "a.pt2", "a.so", "a.pkl", "a.joblib", "a.h5", "a.zip", "a.npz", "a.onnx", "a"]
)
@pytest.mark.parametrize("checkpoints", [False, True])
def test_what_is_no_data_by_its_name_is_refused(path: str, checkpoints: bool) -> None:
    with pytest.raises(Refused, match=r"code comes with the image or package"):
        Manifest.of([listed(path)], checkpoints)


def listed(path: str = "a.txt", size: int = 1, sha256: str = "0" * 64) -> Listed:
    return Listed(path, size, sha256)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "from 1 to"),
        ([listed(f"{n}.txt") for n in range(FILES_MAX + 1)], "from 1 to"),
        ([listed(), listed()], "same file"),
        ([listed("a.txt"), listed("A.txt")], "same file"),
        ([listed("x/a.txt"), listed("X/a.TXT")], "same file"),
        ([listed("a.txt"), listed("a.txt/b.txt")], "is a file, and the folder"),
        ([listed("A.txt"), listed("a.txt/x/b.txt")], "is a file, and the folder"),
        ([listed(size=-1)], "shards"),
        ([listed(size=FILE_BYTES_MAX + 1)], "shards"),
        ([listed(f"{n}.txt", FILE_BYTES_MAX) for n in range(65)], "over 4,398,046,511,104 bytes"),
        ([listed(sha256="0" * 63 + "A")], "no SHA-256"),
        ([listed(sha256="../" * 21 + "0")], "no SHA-256"),
    ],
)
def test_a_list_of_files_has_bounds(files: list[Listed], message: str) -> None:
    with pytest.raises(Refused, match=message):
        Manifest.of(files)


MANIFEST = Manifest.of([listed("b/x.safetensors", 5), listed("a.txt")])


def test_a_manifest_is_written_in_one_way() -> None:
    assert Manifest.parse(MANIFEST.encode(), MANIFEST.reference) == MANIFEST
    assert Manifest.of(reversed(MANIFEST.files)).reference == MANIFEST.reference
    assert Manifest.of(MANIFEST.files, checkpoints=True).reference != MANIFEST.reference


def changed(change: Callable[[Any], Any]) -> bytes:
    value = json.loads(MANIFEST.encode())
    change(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"null", b'{"files":[]}', MANIFEST.encode() + b"\n", b" " * (1 << 20) + MANIFEST.encode(),
        changed(lambda value: value.update(format="tundish-artifact/2")),
        changed(lambda value: value.update(more=1)),
        changed(lambda value: value.update(checkpoints=1)),
        changed(lambda value: value["files"].reverse()),
        changed(lambda value: value["files"][0].update(path="../a.txt")),
        changed(lambda value: value["files"][0].update(path=1)),
        changed(lambda value: value["files"][0].update(size=True)),
        changed(lambda value: value["files"][0].update(size="1")),
        changed(lambda value: value["files"][0].update(mode=0o755)),
        changed(lambda value: value["files"][0].pop("sha256")),
        changed(lambda value: value["files"].append(1)),
        changed(lambda value: value.update(files=1)),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        Manifest.parse(body, f"sha256:{sha256(body).hexdigest()}")


@pytest.mark.parametrize(
    "reference", ["", "0" * 64, "sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha256:../../x", "md5:x"]
)
def test_a_reference_that_is_none_is_refused(reference: str) -> None:
    with pytest.raises(Refused, match="is no artifact"):
        Manifest.parse(MANIFEST.encode(), reference)


def test_a_manifest_of_another_artifact_is_refused() -> None:
    with pytest.raises(Refused, match="another SHA-256"):
        Manifest.parse(MANIFEST.encode(), f"sha256:{'0' * 64}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights" / "sub").mkdir(parents=True)
    (tmp_path / "weights" / "sub" / "a.txt").write_bytes(b"a")
    return tmp_path / "weights"


def test_a_folder_is_read_whole(folder: Path) -> None:
    assert [each.path for each in read(folder).files] == ["sub/a.txt"]
    (folder / "one.safetensors").write_bytes(ONE)
    assert [(each.path, each.size) for each in read(folder).files] == [("one.safetensors", len(ONE)), ("sub/a.txt", 1)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: (folder / "b.txt").symlink_to("sub/a.txt"), "b.txt is a symbolic link"),
        (lambda folder: (folder / "b.txt").symlink_to("/etc/passwd"), "b.txt is a symbolic link"),
        (lambda folder: (folder / "other").symlink_to("sub"), "other is a symbolic link"),
        (lambda folder: (folder / "b.txt").symlink_to("nowhere"), "b.txt is a symbolic link"),
        (lambda folder: os.mkfifo(folder / "b.txt"), "neither a file nor a folder"),
        (lambda folder: (folder / ".hidden.txt").touch(), "no name for a file"),
        (lambda folder: (folder / "model.py").touch(), "code comes with"),
        (lambda folder: (folder / "a.pt").write_bytes(WEIGHTS), "--checkpoints"),
        (lambda folder: (folder / "a.txt").write_bytes(pickle.dumps(Runs(), 0)), "a.txt is refused: it is a pickle"),
        (lambda folder: (folder / "/".join("d" * 200)).mkdir(parents=True), "lies too deep"),
        (lambda folder: (folder / "sub" / "a.txt").unlink(), "from 1 to 1000 files"),
        (lambda folder: [(folder / f"{n}.txt").touch() for n in range(FILES_MAX)], "over 1000 files"),
    ],
)
def test_a_folder_with_what_is_no_data_is_refused(folder: Path, make: Callable[[Path], Any], message: str) -> None:
    make(folder)
    with pytest.raises(Refused, match=message):
        read(folder)
