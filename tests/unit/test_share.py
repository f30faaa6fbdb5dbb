"""Two workers on one device: their shares, and their shelves over a device whose memory is counted."""

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import pytest

from tests.local import TREE
from tests.shelves import NO_ARTIFACTS
from tundish import Batch, Model, Reject
from tundish.catalog import Served
from workers.batch import Target, Waiting
from workers.entry import Place
from workers.gpu import Cpu
from workers.share import Others, Share, _own
from workers.shelf import LEFT, TRIES, LoadFailed, Shelf
from workers.turn import Wish

#: Long after all that happens here.
NOW = time.monotonic() + 1e6

A, B, C = (Target(name, "1") for name in "abc")
PATIENCE = 10.0


class Gpu(Cpu):
    """One worker's sight of a device of 100 bytes, of which models may take 90. What it gives back stays in its cache,
    as with torch."""

    of_who_acts: ClassVar["Gpu"]

    def __init__(self, workers: "list[Gpu]") -> None:
        super().__init__()
        self._workers = workers
        self._taken = self._cached = 0
        workers.append(self)

    def uuid(self) -> str:
        return "of all"

    def memory(self) -> tuple[int, int]:
        return 100, sum(each.taken() for each in self._workers)

    def taken(self) -> int:
        return self._taken + self._cached

    def take(self, size: int) -> None:
        if self.memory()[1] + size > 100:
            raise MemoryError("the device is full")
        self._taken += size
        self._cached += max(0, -size)

    @classmethod
    def free(cls) -> None:
        cls.of_who_acts._cached = 0


class Heavy(Model[int, int]):
    """Takes `size` bytes, of which `left` stay when it moves to host memory."""

    version = "1"
    gpu: ClassVar[Gpu]
    size: ClassVar[int]
    left: ClassVar[int]

    def load(self, device: str) -> None:
        self.gpu.take(self.size)
        self.takes = self.size

    def predict(self, batch: Batch[int]) -> list[int | Reject]:
        return list(batch)

    def to(self, device: str) -> None:
        wanted = self.left if device == "cpu" and self.takes == self.size else self.size
        self.gpu.take(wanted - self.takes)
        self.takes = wanted

    def unload(self) -> None:
        self.gpu.take(-self.takes)


class Worker:
    """A shelf and its share. `models` by name: bytes, how many stay behind, and whether it is pinned."""

    def __init__(self, home: Path, gpu: Gpu, models: dict[str, tuple[int, int, bool]], limit: float = math.inf) -> None:
        self.gpu = Gpu.of_who_acts = gpu
        self.share = Share(gpu, "gpu", limit, home)
        self.share.open()
        attributes = {
            name: {"name": name, "gpu": gpu, "size": size, "left": left, "pinned": pinned}
            for name, (size, left, pinned) in models.items()
        }
        served = [Served(type(name, (Heavy,), given)) for name, given in attributes.items()]
        self.shelf = Shelf(served, gpu, NO_ARTIFACTS, self.share, host_budget=lambda: math.inf)
        self.shelf.soon = lambda verb: verb()
        self.shelf.fill()

    def choose(self, now: float = NOW, idle: bool = True, **since: float) -> set[Target]:
        """As the thread that claims does, after a look, where a full batch waits for each of these since then."""
        Gpu.of_who_acts = self.gpu
        self.share.look()
        waiting = {Target(name, "1"): Waiting(1.0, moment) for name, moment in since.items()}
        return set(self.shelf.choose(waiting, now, idle).targets)

    def bring(self, target: Target) -> None:
        Gpu.of_who_acts = self.gpu
        self.shelf.drafted(target)
        with self.shelf.lend(target):
            pass

    def there(self) -> set[Target]:
        return {target for target, each in self.shelf.stock.entries.items() if each.there}


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever share a test opens and leaves open is closed after it."""
    opened: list[Share] = []
    open_share = Share.open

    def noted(share: Share) -> None:
        open_share(share)
        opened.append(share)

    monkeypatch.setattr(Share, "open", noted)
    yield
    for share in opened:
        if not share._closed.is_set():
            share.close()


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> tuple[Gpu, Gpu]:
    workers: list[Gpu] = []
    monkeypatch.setattr("tundish.device.free", Gpu.free)
    return Gpu(workers), Gpu(workers)


def test_one_that_does_not_fit_beside_the_other_worker_comes_once_that_has_made_room(
    tmp_path: Path, gpus: tuple[Gpu, Gpu]
) -> None:
    first = Worker(tmp_path, gpus[0], {"a": (60, 0, False)})
    second = Worker(tmp_path, gpus[1], {"b": (60, 0, False)})
    assert (first.there(), second.there()) == ({A}, set())
    assert first.shelf.complete
    assert second.choose(b=NOW) == set()
    first.share.look()
    assert not first.shelf.complete
    assert first.choose(a=NOW) == {A}
    first.choose()
    assert (first.there(), gpus[1].memory()) == (set(), (100, 0))
    assert second.choose(b=NOW) == {B}
    second.bring(B)
    assert (second.share.best, second.shelf.stock.memory()) == (90, (100, 60))
    first.share.look()
    assert first.share.others == (60, None, 1)
    assert first.choose(a=0.0) == set()
    second.choose()
    assert first.choose(a=0.0) == {A}
    first.bring(A)
    assert (first.there(), second.there()) == ({A}, set())


def test_what_is_busy_leaves_by_turn_and_never_under_a_batch(tmp_path: Path, gpus: tuple[Gpu, Gpu]) -> None:
    first = Worker(tmp_path, gpus[0], {"a": (40, 0, False), "c": (40, 0, True)})
    second = Worker(tmp_path, gpus[1], {"b": (40, 0, False)})
    assert second.choose(b=NOW) == set()
    assert first.choose(a=NOW, now=NOW) == {A, C}
    assert first.choose(a=NOW, now=NOW + 1000, idle=False) == set()
    assert first.there() == {A, C}
    first.choose(a=NOW, now=NOW + 1000)
    assert first.there() == {C}
    assert second.choose(b=NOW) == {B}


def test_who_can_do_without_gets_what_nobody_asks_for(tmp_path: Path, gpus: tuple[Gpu, Gpu]) -> None:
    first = Worker(tmp_path, gpus[0], {"a": (40, 0, False)})
    second = Worker(tmp_path, gpus[1], {"b": (40, 0, False), "c": (40, 0, False)})
    assert second.there() == {C}
    second.choose(b=NOW, c=NOW)
    first.share.look()
    assert first.share.others.wish == Wish(40, math.inf)
    first.choose(a=NOW, now=NOW + 1000)
    assert first.there() == {A}
    first.choose(now=NOW + 1000)
    assert first.there() == set()
    assert second.choose(b=NOW, c=NOW) == {B}


def test_room_that_was_made_for_others_is_not_taken_back_while_they_want_it(
    tmp_path: Path, gpus: tuple[Gpu, Gpu]
) -> None:
    first = Worker(tmp_path, gpus[0], {"a": (60, 0, False)})
    second = Worker(tmp_path, gpus[1], {"b": (60, 0, False)})
    second.choose(b=0.0)
    first.choose()
    now = first.shelf._left_at
    assert first.choose(a=now, now=now + LEFT - 1) == set()
    assert first.choose(a=now, now=now + LEFT + 1) == {A}
    second.choose()
    assert first.choose(a=now, now=now + LEFT - 1) == {A}


def test_no_room_beside_others_is_never_final(tmp_path: Path, gpus: tuple[Gpu, Gpu]) -> None:
    Worker(tmp_path, gpus[0], {"a": (60, 0, True)})
    second = Worker(tmp_path, gpus[1], {"b": (60, 0, False)})
    for _ in range(TRIES + 1):
        with pytest.raises(LoadFailed, match="of which other workers hold 60") as failed:
            second.bring(B)
        assert not failed.value.final
    assert second.shelf.stock.hopeless() == set()


def test_without_others_a_load_that_finds_no_memory_is_final_in_the_end(tmp_path: Path, gpus: tuple[Gpu, Gpu]) -> None:
    gpus[0].take(60)  # by somebody who is no worker
    second = Worker(tmp_path, gpus[1], {"b": (60, 0, False)})
    for number in range(2, TRIES + 1):
        assert second.choose(b=0.0, now=NOW * number) == {B}
        with pytest.raises(LoadFailed, match="MemoryError") as failed:
            second.bring(B)
        assert failed.value.final == (number == TRIES)


def test_jobs_hear_of_room_that_nobody_is_going_to_make(tmp_path: Path, gpus: tuple[Gpu, Gpu]) -> None:
    second = Worker(tmp_path, gpus[1], {"a": (60, 0, False), "b": (60, 0, False)})
    assert second.there() == {B}
    gpus[0].take(40)  # by somebody who is no worker
    assert second.choose(a=0.0) == {A, B}
    with pytest.raises(LoadFailed, match="60 bytes of the device's 90") as failed:
        second.bring(A)
    assert not failed.value.final
    assert second.shelf.stock.entries[A].failures == 1


def test_what_never_fits_is_hopeless_whoever_holds_the_device(tmp_path: Path, gpus: tuple[Gpu, Gpu]) -> None:
    first = Worker(tmp_path, gpus[0], {"a": (60, 0, False)})
    second = Worker(tmp_path, gpus[1], {"b": (30, 0, False), "c": (20, 0, False)}, limit=25)
    assert second.shelf.stock.hopeless() == {B}
    assert second.shelf.stock.able() == [C]
    assert second.choose(b=0.0) == {B, C}
    with pytest.raises(LoadFailed, match="30 bytes of the device's 25; set TUNDISH_DEVICE_MEMORY") as failed:
        second.bring(B)
    assert failed.value.final
    assert first.choose(now=NOW) == {A}


@pytest.mark.parametrize(("left", "held", "place"), [(0, 0, Place.HOST), (6, 6, Place.HOST), (7, 0, Place.NOWHERE)])
def test_what_a_move_to_host_memory_leaves_is_held(
    tmp_path: Path, gpus: tuple[Gpu, Gpu], left: int, held: int, place: Place
) -> None:
    first = Worker(tmp_path, gpus[0], {"a": (60, left, False)})
    second = Worker(tmp_path, gpus[1], {"b": (60, 0, False)})
    second.choose(b=0.0)
    first.choose()
    assert first.shelf.stock.entries[A].place is place
    assert gpus[0].taken() == held
    second.share.look()
    assert (second.share.others.held, second.share.budget) == (held, 90 - held)
    assert first.shelf.stock.taken() == held


def test_what_was_left_makes_room_too(tmp_path: Path, gpus: tuple[Gpu, Gpu]) -> None:
    first = Worker(tmp_path, gpus[0], {"a": (60, 6, False), "b": (86, 0, False)})
    assert (first.there(), first.shelf.stock.taken()) == (set(), 6)
    assert first.choose(b=0.0) == {B}
    first.bring(B)
    assert first.shelf.stock.entries[A].place is Place.NOWHERE
    assert gpus[0].taken() == 86


def test_a_worker_takes_what_it_takes_itself(tmp_path: Path, gpus: tuple[Gpu, Gpu]) -> None:
    first = Worker(tmp_path, gpus[0], {"a": (30, 0, False)})
    second = Worker(tmp_path, gpus[1], {"b": (40, 0, False)})
    gpus[1].take(5)
    assert (first.shelf.stock.taken(), second.shelf.stock.taken()) == (30, 45)
    assert first.shelf.stock.memory() == second.shelf.stock.memory() == (100, 75)


def test_memory_of_whomever_else_is_not_ours(tmp_path: Path, gpus: tuple[Gpu, Gpu]) -> None:
    gpus[1].take(30)
    first = Worker(tmp_path, gpus[0], {"a": (40, 0, False)})
    assert (first.share.others.held, first.share.budget, first.share.best) == (0, 60, 90)


def test_on_a_cpu_the_limit_is_there_once_and_without_one_nothing_is_shared(tmp_path: Path) -> None:
    first, second, free = (Share(Cpu(), "cpu", limit, tmp_path) for limit in (100, 150, math.inf))
    for each in (first, second, free):
        each.open()
    first.hold(70)
    first.want(Wish(7, 1.5))
    second.want(Wish(8, math.inf))
    for each in (second, free):
        each.look()
    assert second.others == (70, Wish(7, 1.5), 2)
    assert (second.budget, second.best) == (80, 150)
    assert free.others == (0, None, 2)
    assert free.budget == math.inf


def test_workers_of_other_devices_count_for_the_machine_alone(tmp_path: Path) -> None:
    first, second = (Share(Cpu(), name, 100, tmp_path) for name in ("one", "two"))
    first.open()
    first.hold(70)
    second.open()
    assert second.others == (0, None, 1)
    first.close()
    second.look()
    assert second.others == (0, None, 0)
    assert [each.name for each in tmp_path.iterdir()] == ["two"]


_HOLDS = """
import sys
from pathlib import Path
from workers.gpu import Cpu
from workers.share import Others, Share, _own
share = Share(Cpu(), "cpu", 100, Path(sys.argv[1]))
share.open()
with share.alone():
    share.hold(70)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_share_of_a_killed_worker_comes_back_and_the_others_hear_of_it(tmp_path: Path) -> None:
    share, changed = Share(Cpu(), "cpu", 100, tmp_path), Event()
    share.open()
    command = [sys.executable, "-c", _HOLDS, str(tmp_path)]
    with subprocess.Popen(command, cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        share.look()
        assert share.budget == 30
        share.watch(changed.set)
        other.kill()
        other.wait()
    assert changed.wait(PATIENCE)
    assert share.budget == 100
    with share.alone():
        share.close()
    assert list(tmp_path.iterdir()) == []


def test_one_loads_at_a_time(tmp_path: Path) -> None:
    first, second = (Share(Cpu(), "cpu", 100, tmp_path) for _ in range(2))
    first.open()
    second.open()
    began, inside = Event(), Event()

    def load() -> None:
        began.set()
        with second.alone():
            inside.set()
            assert second.budget == 30

    thread = Thread(target=load)
    with first.alone():
        thread.start()
        assert began.wait(PATIENCE)
        assert not inside.wait(0.1)
        first.hold(70)
    assert inside.wait(PATIENCE)
    thread.join()


def test_a_folder_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="another user"):
        Share(Cpu(), "cpu", 100, tmp_path / "link").open()


def test_a_neighbour_that_has_just_come_holds_nothing_and_one_that_goes_is_gone(tmp_path: Path) -> None:
    share = Share(Cpu(), "here", 100, tmp_path)
    share.open()
    _, just_come = _own(tmp_path / "here")
    (tmp_path / "no device").touch()
    share.look()
    assert share.others == Others(workers=1)
    os.close(just_come)
    share.look()
    assert share.others == Others()
    share.close()


def test_who_empties_the_folder_of_devices_parts_the_workers_for_a_look_alone(
    tmp_path: Path, gpus: tuple[Gpu, Gpu]
) -> None:
    first = Worker(tmp_path, gpus[0], {"a": (40, 0, False), "c": (40, 0, False)})
    second = Worker(tmp_path, gpus[1], {"b": (60, 0, False)})
    assert second.choose(b=NOW) == set()
    first.share.look()
    before = first.share.others
    assert before.wish
    shutil.rmtree(tmp_path)
    first.share.look()
    assert first.share.others == Others()
    second.share.look()
    first.share.look()
    assert (first.share.others, second.share.others) == (before, Others(80, None, 1))
    shutil.rmtree(tmp_path)
    with first.share.alone():
        assert first.share._path.exists()
    first.share.close()
    second.share.close()
    assert list(tmp_path.iterdir()) == []
