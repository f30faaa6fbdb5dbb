"""Artifacts from a folder through a store to a cache: a directory and a real S3, faults, kills, and many at once."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.local import TREE
from tests.s3 import ENVIRONMENT, Server
from tests.shelves import alone
from tundish import Batch, Model, Reject
from tundish.artifact import Cache, CacheError, Held, Refused, push
from tundish.blobs import BlobMissing, Blobs, BlobUnavailable, Directory, artifact_key, open_blobs
from tundish.blobs.s3 import S3
from tundish.catalog import Served
from tundish.command import main
from tundish.settings import Settings
from tundish.testing import run
from workers.gpu import Cpu
from workers.load import unload
from workers.shelf import Shelf

#: A process that pulls REFERENCE from STORE to CACHE; it writes down what it reads, and stops within it if told.
PULL = """
import sys, signal
from contextlib import contextmanager
from pathlib import Path
from tundish.artifact import Cache
from tundish.blobs import Directory
store, cache, reference, ledger, stop = sys.argv[1:]
class Told(Directory):
    @contextmanager
    def reading(self, key, etag=None, at=0):
        with open(ledger, "a") as file:
            file.write(key + "\\n")
        with super().reading(key, etag, at) as file:
            if stop and self.stat(key).size > 2**20:
                yield Stopping(file)
            else:
                yield file
class Stopping:
    def __init__(self, file):
        self.file = file
        self.within = False
    def read(self, size):
        if self.within:
            print("within", flush=True)
            signal.pause()
        self.within = True
        return self.file.read(size)
held = Cache(Path(cache), Told(Path(store), b"")).pull(reference)
print("pulled", flush=True)
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path / "s3")
    yield server
    server.kill()


@pytest.fixture
def store(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "store", b"")


@pytest.fixture(params=["directory", "S3"])
def blobs(request: pytest.FixtureRequest) -> Blobs:
    if request.param == "directory":
        store: Blobs = request.getfixturevalue("store")
        return store
    url: str = request.getfixturevalue("server").url
    return open_blobs(Settings(blob_url="s3://bucket/some/prefix", s3_endpoint_url=url))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a file over one part of S3, and a small one below."""
    folder = tmp_path / "weights"
    (folder / "tokens").mkdir(parents=True)
    (folder / "large.txt").write_bytes(b"0123456789abcdef" * 1_500_000)
    (folder / "tokens" / "small.json").write_text("{}")
    return folder


def of(tmp_path: Path, name: str, letters: str, store: Blobs) -> str:
    """An artifact of a megabyte a letter; the same letter is the same file."""
    folder = tmp_path / name
    folder.mkdir()
    for letter in letters:
        (folder / f"{letter}.txt").write_text(letter * 1_000_000)
    return push(folder, store).manifest.reference


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_pushed_is_pulled(blobs: Blobs, folder: Path, tmp_path: Path) -> None:
    told: list[tuple[str, str, int]] = []
    first = push(folder, blobs, told=lambda what, path, size, more: told.append((what, path, more)))
    for what in ("reading", "pushing"):
        assert sum(more for did, path, more in told if (did, path) == (what, "large.txt")) == 24_000_000
    assert [each.path for each in first.new] == ["large.txt", "tokens/small.json"]
    assert not push(folder, blobs).new
    cache = Cache(tmp_path / "cache", blobs)
    held = cache.pull(first.manifest.reference)
    assert contents(held.path) == contents(folder)
    assert {path.stat().st_mode & 0o777 for path in held.path.rglob("*.*")} == {0o444}

    (folder / "tokens" / "small.json").write_text("[]")
    second = push(folder, blobs)
    assert [each.path for each in second.new] == ["tokens/small.json"]
    again = cache.pull(second.manifest.reference)
    assert contents(again.path) == contents(folder)
    assert (again.path / "large.txt").samefile(held.path / "large.txt")
    assert len(names(tmp_path / "cache" / "files")) == 3


def test_an_artifact_that_is_not_there_says_what_to_do(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(BlobMissing, match=f"no artifact sha256:{'0' * 64}; push it"):
        Cache(tmp_path / "cache", blobs).pull(f"sha256:{'0' * 64}")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (b"other", "is not what"),
        (b"thre", "is not what"),
        (b"", "is not what"),
        (b"threes", "has over the 5 bytes that"),
    ],
)
def test_what_is_not_what_was_pushed_is_refused(blobs: Blobs, tmp_path: Path, other: bytes, message: str) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.txt").write_bytes(b"three")
    manifest = push(tmp_path / "weights", blobs).manifest
    blobs.put(artifact_key(manifest.files[0].sha256), other, "")
    with pytest.raises(Refused, match=f"a.txt is refused: it {message}"):
        Cache(tmp_path / "cache", blobs).pull(manifest.reference)
    assert not contents(tmp_path / "cache" / "files")
    assert names(tmp_path / "cache" / "artifacts" / manifest.reference[7:]) == {"manifest.json", "files"}
    blobs.put(artifact_key(manifest.files[0].sha256), b"three", "")
    assert contents(Cache(tmp_path / "cache", blobs).pull(manifest.reference).path) == {"a.txt": b"three"}


def test_a_manifest_that_is_not_what_was_pushed_is_refused(store: Directory, folder: Path, tmp_path: Path) -> None:
    manifest = push(folder, store).manifest
    store.put(artifact_key(manifest.reference[7:]), manifest.encode().replace(b"large", b"lArge"), "")
    with pytest.raises(Refused, match="another SHA-256"):
        Cache(tmp_path / "cache", store).pull(manifest.reference)


def test_what_is_no_data_is_refused_by_who_pulls_too(store: Directory, tmp_path: Path) -> None:
    """Whoever pushed it has not judged it."""
    body = b"cos\nsystem\n(S'true'\ntR."
    digest = sha256(body).hexdigest()
    manifest = f'{{"checkpoints":false,"files":[{{"path":"a.txt","sha256":"{digest}","size":{len(body)}}}],'
    manifest += '"format":"tundish-artifact/1"}'
    reference = sha256(manifest.encode()).hexdigest()
    store.put(artifact_key(digest), body, "")
    store.put(artifact_key(reference), manifest.encode(), "")
    for _ in range(2):
        with pytest.raises(Refused, match=r"a.txt is refused: it is a pickle"):
            Cache(tmp_path / "cache", store).pull(f"sha256:{reference}")


def test_a_file_that_changes_while_it_is_pushed_is_not_kept(blobs: Blobs, folder: Path, tmp_path: Path) -> None:
    def change(what: str, path: str, *_: int) -> None:
        if (what, path) == ("reading", "tokens/small.json"):
            (folder / "tokens" / "small.json").write_text("[]")
            (folder / "large.txt").write_bytes(b"fedcba9876543210" * 1_500_000)

    unchanged = tmp_path / "unchanged"
    unchanged.mkdir()
    (unchanged / "large.txt").write_bytes((folder / "large.txt").read_bytes())
    with pytest.raises(Refused, match=r"large.txt has changed since it was read; push again"):
        push(folder, blobs, told=change)
    assert len(push(unchanged, blobs).new) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    ],
)
@pytest.mark.parametrize("same_process", [True, False])
def test_what_was_damaged_on_the_disk_is_pulled_again(
    store: Directory, folder: Path, tmp_path: Path, damage: Callable[[Path], Any], same_process: bool
) -> None:
    reference = push(folder, store).manifest.reference
    cache = Cache(tmp_path / "cache", store)
    held = cache.pull(reference)
    large = held.path / "large.txt"
    large.chmod(0o644)
    damage(large)
    manifest = held.path.parent / "manifest.json"
    manifest.write_text("{}")
    again = (cache if same_process else Cache(tmp_path / "cache", store)).pull(reference)
    assert contents(again.path) == contents(folder)
    assert manifest.stat().st_size > 2
    assert len(names(tmp_path / "cache" / "files")) == 2


def test_what_is_in_the_cache_needs_no_store(store: Directory, folder: Path, tmp_path: Path) -> None:
    reference = push(folder, store).manifest.reference
    Cache(tmp_path / "cache", store).pull(reference)
    store.delete_prefix("artifacts/")
    assert contents(Cache(tmp_path / "cache", store).pull(reference).path) == contents(folder)


def test_what_was_not_used_for_longest_makes_room(store: Directory, tmp_path: Path) -> None:
    a, b, c = (of(tmp_path, name, letters, store) for name, letters in (("a", "ax"), ("b", "bx"), ("c", "cd")))
    cache = Cache(tmp_path / "cache", store, limit=4_000_000)
    for reference in (a, b, a):  # three megabytes: both have x
        cache.pull(reference)
    cache.pull(c)
    assert names(tmp_path / "cache" / "artifacts") == {a[7:], c[7:]}
    assert sum(map(len, contents(tmp_path / "cache" / "files").values())) == 4_000_000
    held = cache.pull(b)
    assert contents(held.path).keys() == {"b.txt", "x.txt"}
    assert names(tmp_path / "cache" / "artifacts") == {b[7:], c[7:]}


def test_what_is_in_use_does_not_make_room(store: Directory, tmp_path: Path) -> None:
    a, b, large = (of(tmp_path, name, name, store) for name in ("a", "b", "large"))
    caches = [Cache(tmp_path / "cache", store, limit=1_500_000) for _ in range(2)]
    held: Held | None = caches[0].pull(a)
    with pytest.raises(CacheError, match=r"has no room for 1,000,000 bytes.* set TUNDISH_CACHE_BYTES higher"):
        caches[1].pull(b)
    assert held
    assert contents(held.path).keys() == {"a.txt"}
    with pytest.raises(CacheError, match=r"has 5,000,000 bytes, and the cache .* takes 1,500,000"):
        caches[1].pull(large)
    held = None
    assert contents(caches[1].pull(b).path).keys() == {"b.txt"}
    assert a[7:] not in names(tmp_path / "cache" / "artifacts")


def test_a_cache_that_cannot_be_written_says_what_to_set(store: Directory, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"cannot be used: .*; set TUNDISH_CACHE_DIR"):
        Cache(tmp_path / "file" / "cache", store).pull(push(folder, store).manifest.reference)


def pulling(tmp_path: Path, reference: str, stop: str = "") -> "subprocess.Popen[str]":
    given = [tmp_path / "store", tmp_path / "cache", reference, tmp_path / "ledger", stop]
    return subprocess.Popen([sys.executable, "-c", PULL, *map(str, given)], cwd=TREE, stdout=subprocess.PIPE, text=True)


def test_a_kill_within_a_pull_leaves_no_half_file(store: Directory, folder: Path, tmp_path: Path) -> None:
    reference = push(folder, store).manifest.reference
    with pulling(tmp_path, reference, stop="stop") as process:
        assert process.stdout
        assert process.stdout.readline() == "within\n"
        with pulling(tmp_path, reference) as waiting:
            process.send_signal(signal.SIGKILL)
            assert waiting.stdout
            assert waiting.stdout.readline() == "pulled\n"
    for again in (1, 2):
        assert contents(Cache(tmp_path / "cache", store).pull(reference).path) == contents(folder), again
        assert not any(name.endswith(".part") for name in names(tmp_path / "cache" / "files"))


def test_what_a_kill_left_makes_room_at_once(store: Directory, folder: Path, tmp_path: Path) -> None:
    reference, a = push(folder, store).manifest.reference, of(tmp_path, "a", "a", store)
    with pulling(tmp_path, reference, stop="stop") as process:
        assert process.stdout
        assert process.stdout.readline() == "within\n"
        cache = Cache(tmp_path / "cache", store, limit=24_500_000)
        with pytest.raises(CacheError, match="no room"):
            cache.pull(a)  # what is on its way has its room from the beginning
        process.kill()
    left = {
        name: size for name, size in ((each.name, each.stat().st_size) for each in (tmp_path / "cache/files").iterdir())
    }
    assert [(name[64:], size) for name, size in left.items()] == [(".part", 24_000_000)]
    cache.pull(a)
    assert sum(map(len, contents(tmp_path / "cache" / "files").values())) == 1_000_000


def test_a_pull_that_has_just_begun_does_not_make_room(
    store: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, lock = of(tmp_path, "a", "a", store), fcntl.flock
    part = tmp_path / "cache" / "files" / "0.part"
    part.parent.mkdir(parents=True)
    part.touch()

    def late(descriptor: int, how: int) -> None:
        if part.exists() and not part.read_text() and os.path.samestat(part.stat(), os.fstat(descriptor)):
            # Its process is done with it now, and another one begins it anew.
            part.unlink()
            part.write_text("begun")
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    Cache(tmp_path / "cache", store).pull(reference)
    assert part.read_text() == "begun"


def test_many_processes_pull_each_file_once(store: Directory, folder: Path, tmp_path: Path) -> None:
    manifest = push(folder, store).manifest
    with ExitStack() as stack:
        processes = [stack.enter_context(pulling(tmp_path, manifest.reference)) for _ in range(4)]
        assert [process.communicate()[0] for process in processes] == ["pulled\n"] * 4
    pulled = (tmp_path / "ledger").read_text().splitlines()
    for each in manifest.files:
        assert pulled.count(artifact_key(each.sha256)) == 1
    assert contents(Cache(tmp_path / "cache", store).pull(manifest.reference).path) == contents(folder)


def test_a_store_that_goes_away_within_a_pull_leaves_no_half_file(server: Server, folder: Path, tmp_path: Path) -> None:
    class Leaving(S3):
        @contextmanager
        def reading(self, key: str, etag: str | None = None, at: int = 0) -> Iterator[BinaryIO]:
            with super().reading(key, etag, at) as file:
                if key == large:
                    assert file.read(10) == b"0123456789"
                    server.kill()
                yield file

    blobs = Leaving("bucket", "", server.url)
    manifest = push(folder, blobs).manifest
    large = artifact_key(manifest.files[0].sha256)
    with pytest.raises(BlobUnavailable, match="does not answer"):
        Cache(tmp_path / "cache", blobs).pull(manifest.reference)
    assert not contents(tmp_path / "cache" / "files")


class Reader(Model[int, str]):
    name = "reader"
    version = "1"

    def load(self, device: str) -> None:
        self.text = (self.files / "tokens" / "small.json").read_text()

    def predict(self, batch: Batch[int]) -> list[str | Reject]:
        return [self.text] * len(batch)


def test_a_model_holds_its_files_until_it_is_unloaded(store: Directory, folder: Path, tmp_path: Path) -> None:
    reference = push(folder, store).manifest.reference
    cache = Cache(tmp_path / "cache", store, limit=24_500_000)
    model = type("Pinned", (Reader,), {"artifact": reference})()
    cache.equip(model)
    model.load("cpu")
    other = of(tmp_path, "a", "a", store)
    with pytest.raises(CacheError, match="is in use"):
        cache.pull(other)
    unload(model)
    cache.pull(other)


def test_a_worker_pulls_what_it_has_no_memory_for_yet(store: Directory, tmp_path: Path) -> None:
    """So that no model waits for a pull of another while jobs run."""
    models: list[Any] = [
        type(
            name,
            (Reader,),
            {"name": name, "artifact": of(tmp_path, name, name, store), "memory": memory, "load": nothing},
        )
        for name, memory in (("a", 600), ("b", 600), ("large", 5000))
    ]
    cache = Cache(tmp_path / "cache", store, 2_000_000)
    shelf = Shelf(map(Served, models), Cpu(), cache, alone(1000), host_budget=lambda: 0)
    shelf.fill()
    assert names(tmp_path / "cache" / "artifacts") >= {each.artifact[7:] for each in models[:2]}
    shelf.close()


def nothing(self: object, device: str) -> None:
    """Reads no file."""


def test_a_model_is_tried_with_its_artifact_or_with_a_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNDISH_DATA_DIR", str(tmp_path / "data"))
    assert main(["models", "push", str(folder)]) == 0
    reference = capsys.readouterr().out.splitlines()[0]
    pinned: type[Model[int, str]] = type("Pinned", (Reader,), {"artifact": reference})
    assert run(pinned, [1]) == ["{}"]
    (folder / "tokens" / "small.json").write_text("[]")
    assert run(pinned, [1], files=folder) == ["[]"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["push", "{}/nowhere"], "No such file"),
        (["push", "{}/store"], "pickled.txt is refused: it is a pickle"),
        (["pull", "sha256:0"], "is no artifact"),
        (["show", f"sha256:{'0' * 64}"], "there is no artifact"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.setenv("TUNDISH_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "pickled.txt").write_bytes(b"\x80\x05N.")
    assert main(["models", *(word.format(tmp_path) for word in words)]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count(os.linesep) == 1
    assert not said.out
