"""A GPU as NVML and torch tell of it, each of them a fake."""

import faulthandler
import sys
from collections.abc import Callable
from functools import partial
from queue import Queue
from threading import Event
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from tundish.settings import SettingError
from workers import gpu
from workers.gpu import PROBE, Cpu, Cuda, guard, named

GONE = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
TIMEOUT = pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
UNKNOWN = pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)


class Nvml:
    """Writes down its calls. `answers` has what is given, or raised, by a call's name; else a call gives its name.
    `xids` are the events to come; once there is none, time is up."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {"nvmlEventSetWait_v2": self._next_event}
        self.xids: list[int] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(pynvml, name)
        return partial(self._call, name) if name.startswith("nvml") and callable(real) else real

    def _call(self, name: str, *given: Any) -> Any:
        self.calls.append((name, *given))
        answer = self.answers.get(name, name)
        if isinstance(answer, Exception):
            raise answer
        return answer(*given) if callable(answer) else answer

    def _next_event(self, events: object, wait: int) -> SimpleNamespace:
        if not self.xids:
            raise TIMEOUT
        return SimpleNamespace(eventData=self.xids.pop(0))

    def given(self, name: str) -> list[tuple[Any, ...]]:
        """What each call of that name was given."""
        return [call[1:] for call in self.calls if call[0] == name]


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    nvml = Nvml()
    monkeypatch.setattr(gpu, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: SimpleNamespace(uuid=f"{name}-uuid"))
    return nvml


def raising(error: Exception) -> Callable[..., Any]:
    def fake(*given: Any, **options: Any) -> Any:
        raise error

    return fake


def test_a_gpu_that_is_there_is_opened_once_and_has_no_fault(nvml: Nvml) -> None:
    device = Cuda("cuda:1")
    assert [device.fault(2.0), device.fault()] == [None, None]
    assert nvml.given("nvmlDeviceGetHandleByUUID") == [("GPU-cuda:1-uuid",)]
    assert nvml.given("nvmlDeviceRegisterEvents") == [
        ("nvmlDeviceGetHandleByUUID", pynvml.nvmlEventTypeXidCriticalError, "nvmlEventSetCreate")
    ]
    assert nvml.given("nvmlEventSetWait_v2") == [("nvmlEventSetCreate", 2000), ("nvmlEventSetCreate", 0)]


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetMemoryInfo", "nvmlEventSetWait_v2"])
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (pynvml.NVML_ERROR_GPU_IS_LOST, "NVML says: GPU is lost"),
        (pynvml.NVML_ERROR_RESET_REQUIRED, "NVML says: GPU requires restart"),
    ],
)
def test_a_gpu_is_gone_where_nvml_says_so(nvml: Nvml, call: str, code: int, said: str) -> None:
    nvml.answers[call] = pynvml.NVMLError(code)
    assert Cuda("cuda:0").fault() == said


@pytest.mark.parametrize(("xid", "said"), [(79, "Xid 79"), (48, "Xid 48"), (13, None), (31, None)])
def test_an_xid_is_a_fault_but_for_those_of_an_application(nvml: Nvml, xid: int, said: str | None) -> None:
    nvml.xids = [xid]
    assert Cuda("cuda:0").fault() == said


def test_after_an_xid_of_an_application_the_next_one_is_heard(nvml: Nvml) -> None:
    nvml.xids = [13, 79]
    device = Cuda("cuda:0")
    assert [device.fault(), device.fault()] == [None, "Xid 79"]


@pytest.mark.parametrize("call", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents"])
def test_where_there_are_no_events_the_gpu_is_asked_all_the_same(nvml: Nvml, call: str) -> None:
    nvml.answers[call] = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert Cuda("cuda:0").fault() is None
    assert nvml.given("nvmlEventSetWait_v2") == []
    nvml.answers["nvmlDeviceGetMemoryInfo"] = GONE
    assert Cuda("cuda:0").fault() == "NVML says: GPU is lost"


def test_a_part_of_a_gpu_is_found_by_its_own_uuid(nvml: Nvml) -> None:
    def handle(uuid: str) -> str:
        if uuid.startswith("GPU"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    nvml.answers["nvmlDeviceGetHandleByUUID"] = handle
    assert Cuda("cuda:0").fault() is None
    assert nvml.given("nvmlDeviceGetMemoryInfo") == [("MIG-cuda:0-uuid",)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA error: unknown error\nhint"), "torch says: CUDA error: unknown error"),
        (RuntimeError(), "torch says: RuntimeError"),
        (AssertionError("Torch not compiled with CUDA enabled"), "torch says: Torch not compiled with CUDA enabled"),
    ],
)
def test_what_torch_raises_is_a_fault(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", raising(error))
    assert Cuda("cuda:0").fault() == said


@pytest.mark.parametrize(
    "call",
    [
        "nvmlInit",
        "nvmlDeviceGetHandleByUUID",
        "nvmlEventSetCreate",
        "nvmlDeviceRegisterEvents",
        "nvmlDeviceGetMemoryInfo",
        "nvmlEventSetWait_v2",
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN),
        pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND),
        OSError("no such library"),
        AttributeError("uuid"),
    ],
)
def test_a_driver_that_does_not_answer_says_nothing_of_the_gpu_and_is_asked_again(
    nvml: Nvml, call: str, error: Exception
) -> None:
    nvml.answers[call] = error
    device = Cuda("cuda:0")
    assert device.fault() is None
    nvml.answers = {"nvmlDeviceGetMemoryInfo": GONE}
    assert device.fault() == "NVML says: GPU is lost"


def test_the_loss_of_a_device_is_told_once_and_within_5_s() -> None:
    class Gone(Cpu):
        def fault(self, wait: float = 0.0) -> str | None:
            assert wait < 5
            return "the bus"

    told: list[str] = []
    heard = Event()

    def hear(fault: str) -> None:
        told.append(fault)
        heard.set()

    guard(Gone(), hear)
    assert heard.wait(5)
    assert told == ["the bus"]


def test_nothing_ends_the_guard_but_a_fault(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LOOK", 0.0)
    raised = [KeyError("x"), OSError("x"), UNKNOWN, MemoryError(), TIMEOUT, TIMEOUT, GONE]

    def answer(*given: Any) -> Any:
        raise raised.pop(0)

    nvml.answers["nvmlEventSetWait_v2"] = answer
    told: Queue[str] = Queue()
    guard(Cuda("cuda:0"), told.put)
    assert told.get(timeout=5) == "NVML says: GPU is lost"
    assert raised == []


def test_the_guard_tells_what_torch_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", raising(RuntimeError("CUDA error: unknown error")))
    told: Queue[str] = Queue()
    guard(Cuda("cuda:0"), told.put)
    assert told.get(timeout=5) == "torch says: CUDA error: unknown error"


def test_memory_is_told_while_the_gpu_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda name: (30, 80))
    assert Cuda("cuda:0").memory() == (80, 50)
    for error in (RuntimeError("CUDA error: unknown error"), AssertionError("Torch not compiled with CUDA enabled")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", raising(error))
        assert Cuda("cuda:0").memory() is None


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of faulthandler: seconds until it ends the process, 0 where that was called off."""
    told: list[float] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, exit, file: told.append(seconds * exit))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: told.append(0))
    return told


def test_a_probe_computes_and_does_not_hang(monkeypatch: pytest.MonkeyPatch, timer: list[float]) -> None:
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda size, device: ones(size))
    assert Cuda("cuda:0").probe() is None
    monkeypatch.setattr(torch, "ones", lambda size, device: ones(size) * 2)
    assert Cuda("cuda:0").probe() == "it computes garbage"
    assert timer == [PROBE, 0] * 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("No CUDA GPUs are available\nhint"), "No CUDA GPUs are available"),
        (AssertionError("Torch not compiled with CUDA enabled"), "Torch not compiled with CUDA enabled"),
        (OSError(), "OSError"),
    ],
)
def test_a_probe_says_why_nothing_can_be_computed(
    monkeypatch: pytest.MonkeyPatch, timer: list[float], error: Exception, said: str
) -> None:
    monkeypatch.setattr(torch, "ones", raising(error))
    assert Cuda("cuda:0").probe() == said
    assert timer == [PROBE, 0]


def test_a_probe_says_that_torch_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch" in (Cuda("cuda:0").probe() or "")


def test_a_device_is_named_as_torch_names_it() -> None:
    assert isinstance(named("cuda:1"), Cuda)
    cpu = named("cpu")
    assert isinstance(cpu, Cpu)
    assert (cpu.name, cpu.memory(), cpu.fault(), cpu.probe()) == ("cpu", None, None, None)


@pytest.mark.parametrize("name", ["gpu", "CUDA:0", "cuda:", "cuda0", "mps"])
def test_a_device_that_no_worker_has_is_told(name: str) -> None:
    with pytest.raises(SettingError, match=f"TUNDISH_DEVICE is '{name}'; set it to cpu, or to a GPU such as cuda:0"):
        named(name)
