"""What an exception says of the device: out of memory, poisoned, or nothing at all."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tundish import Batch, Model, Reject
from tundish.device import free, lost, out_of_memory, poisoned
from tundish.execute import DeviceLost, run
from tundish.job import Code
from tundish.outcome import Failed, Item
from tundish.runtime import Runtime, Watch
from tundish.testing import Recorder

#: As torch ends what it says of CUDA.
HINT = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be"
    " incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable"
    " device-side assertions.\n"
)
SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    MemoryError(),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError(f"CUDA error: out of memory{HINT}"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=x"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuSOLVER error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
        " allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
]
STICKY = [
    torch.AcceleratorError(f"CUDA error: an illegal memory access was encountered{HINT}"),
    RuntimeError(f"CUDA error: device-side assert triggered{HINT}"),
    RuntimeError(f"CUDA error: unspecified launch failure{HINT}"),
    RuntimeError("Triton Error [CUDA]: misaligned address"),
    RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=x"),
]
UNCLEAR = [
    RuntimeError(f"CUDA error: no kernel image is available for execution on the device{HINT}"),
    RuntimeError(f"CUDA error: invalid configuration argument{HINT}"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA driver error: device not ready"),
    RuntimeError("Triton Error [CUDA]: invalid argument"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ValueError("the input is empty"),
    RuntimeError("this table is out of memory cards"),
]


def said(error: object) -> str:
    return str(error).partition("\n")[0]


@pytest.mark.parametrize("error", SHORT, ids=said)
def test_what_memory_does_not_hold_is_no_loss(error: Exception) -> None:
    assert out_of_memory(error)
    assert not lost(error, poisoned=lambda: True)


@pytest.mark.parametrize("error", STICKY, ids=said)
def test_what_is_sticky_is_a_loss_whatever_torch_knows(error: Exception) -> None:
    assert not out_of_memory(error)
    assert lost(error, poisoned=lambda: False)


@pytest.mark.parametrize("error", UNCLEAR, ids=said)
def test_after_anything_else_the_device_is_asked(error: Exception) -> None:
    assert not out_of_memory(error)
    assert lost(error, poisoned=lambda: True)
    assert not lost(error, poisoned=lambda: False)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """torch's CUDA with three devices, of which `used` hold memory and `broken` raise whenever they are waited for.
    `emptied` are the caches that were."""
    state = SimpleNamespace(used={0, 2}, broken=set[int](), waited=list[int](), emptied=list[str]())

    def synchronize(index: int) -> None:
        state.waited.append(index)
        if index in state.broken:
            raise torch.AcceleratorError(f"CUDA error: unknown error{HINT}")

    for name, fake in {
        "is_initialized": lambda: True,
        "device_count": lambda: 3,
        "memory_reserved": lambda index: 2**21 if index in state.used else 0,
        "synchronize": synchronize,
        "empty_cache": lambda: state.emptied.append("device"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.accelerator, "empty_host_cache", lambda: state.emptied.append("host"))
    return state


def test_a_device_that_torch_holds_nothing_of_is_left_alone(devices: SimpleNamespace) -> None:
    devices.broken = {1}
    assert not poisoned()
    assert devices.waited == [0, 2]
    devices.broken = {2}
    assert poisoned()


def test_where_cuda_never_started_nothing_is_asked(devices: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    devices.broken = {0}
    assert not poisoned()
    assert devices.waited == []


def test_pinned_memory_that_nobody_needs_is_given_back_too(devices: SimpleNamespace) -> None:
    free()
    assert devices.emptied == ["device", "host"]


class Failing(Model[int, int]):
    """Raises one error where a batch has an item below 0."""

    name = "failing"
    version = "1"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def predict(self, batch: Batch[int]) -> list[int | Reject]:
        if min(batch) < 0:
            raise self.error
        return list(batch)


def ran(error: Exception, *inputs: int, watch: Watch = lambda timeout: nullcontext()) -> list[Any]:
    return run(Failing(error), [Item(b"1", "application/json")] * len(inputs), inputs, Recorder(), Runtime(watch=watch))


def test_a_batch_that_cublas_has_no_memory_for_is_halved(devices: SimpleNamespace) -> None:
    first, second = ran(SHORT[8], 1, -1)
    assert first == 1
    assert isinstance(second, Failed)
    assert second.code is Code.OUT_OF_MEMORY


def test_a_model_built_for_another_gpu_fails_alone(devices: SimpleNamespace) -> None:
    [failed] = ran(UNCLEAR[0], -1)
    assert isinstance(failed, Failed)
    assert failed.code is Code.MODEL_ERROR


@pytest.mark.parametrize("error", UNCLEAR, ids=said)
def test_nobody_is_blamed_where_the_device_is_poisoned(devices: SimpleNamespace, error: Exception) -> None:
    devices.broken = {0}
    with pytest.raises(DeviceLost):
        ran(error, -1)


def test_a_device_that_does_not_answer_is_asked_under_the_time_out(devices: SimpleNamespace) -> None:
    waited: list[int] = []

    @contextmanager
    def watch(timeout: float) -> Iterator[None]:
        yield
        waited.extend(devices.waited)

    ran(ValueError("negative"), -1, watch=watch)
    assert waited == [0, 2]
