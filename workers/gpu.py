"""The device of a worker: how much memory it has, and whether it is still there.

A CPU is always there. Of an NVIDIA GPU the driver tells by NVML, which answers without a CUDA context and goes on
answering where CUDA hangs: a query that fails because the GPU is lost, or an Xid event that is not an application's
fault.
"""

import faulthandler
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import pynvml

from tundish.settings import SettingError

log = logging.getLogger(__name__)

#: Seconds between two looks at a GPU: claims end within 5 s of its loss.
LOOK = 2.0
#: Seconds for CUDA to start and compute something; past it the process is ended.
PROBE = 60.0
#: Xid events that an application causes, as NVIDIA's own device plugin for Kubernetes has them: the GPU is sound.
APPLICATION_XIDS = {13, 31, 43, 45, 68, 109}
#: NVML's errors after which the GPU is of no use until somebody resets it or the machine.
_GONE = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED}
#: What torch raises of a GPU; it asserts that it was built for CUDA.
_TORCH = (RuntimeError, AssertionError)


class Device(Protocol):
    """What the worker asks of its device. None of it raises."""

    name: str  # as torch names it
    pinnable: bool  # copies to it are faster from pinned host memory
    grain: int  # bytes up to which what is given back may not show: it is freed in blocks

    def uuid(self) -> str | None:
        """What names it on this machine, whichever devices a process sees; None where it has no memory of its own."""

    def memory(self) -> tuple[int, int] | None:
        """Bytes in all and in use, by whomever; None where the device has no memory of its own, or does not answer."""

    def taken(self) -> int:
        """Bytes in use by this process, as far as that is told."""

    def allocated(self) -> int:
        """Those of them that lie in tensors, and not in what torch keeps for the next ones."""

    def fault(self, wait: float = 0.0) -> str | None:
        """Why the device is gone, once it is; None after `wait` seconds in which it was there."""

    def probe(self) -> str | None:
        """Why nothing can be computed on it; asked once, before anything is loaded."""


class Cpu:
    name = "cpu"
    pinnable = False
    grain = 0

    def uuid(self) -> str | None:
        return None

    def memory(self) -> tuple[int, int] | None:
        return None

    def taken(self) -> int:
        return 0

    def allocated(self) -> int:
        return 0

    def fault(self, wait: float = 0.0) -> str | None:
        time.sleep(wait)
        return None

    def probe(self) -> str | None:
        return None


class Cuda:
    """A GPU by its name in torch."""

    pinnable = True
    grain = 2**25

    def __init__(self, name: str) -> None:
        self.name = name
        self._handle: Any = None
        self._events: Any = None

    def uuid(self) -> str | None:
        import torch

        return str(torch.cuda.get_device_properties(self.name).uuid)

    def memory(self) -> tuple[int, int] | None:
        import torch

        try:
            free, total = torch.cuda.mem_get_info(self.name)
        except _TORCH as error:
            log.debug("torch cannot be asked for memory: %s", error)
            return None
        return total, total - free

    def taken(self) -> int:
        import torch

        return int(torch.cuda.memory_reserved(self.name))

    def allocated(self) -> int:
        import torch

        return int(torch.cuda.memory_allocated(self.name))

    def fault(self, wait: float = 0.0) -> str | None:
        try:
            if self._handle is None:
                self._open()
            pynvml.nvmlDeviceGetMemoryInfo(self._handle)
            return self._next_xid(wait)
        except _TORCH as error:
            return f"torch says: {_first_line(error)}"
        except Exception as error:
            if isinstance(error, pynvml.NVMLError) and error.value in _GONE:
                return f"NVML says: {error}"
            # A driver that does not know the call, or is being replaced, says nothing of the GPU.
            log.debug("NVML cannot be asked: %s", error)
            time.sleep(wait)
            return None

    def probe(self) -> str | None:
        try:
            import torch
        except ImportError as error:
            return _first_line(error)
        faulthandler.dump_traceback_later(PROBE, exit=True, file=sys.__stderr__ or 2)
        try:
            right = int(torch.ones(8, device=self.name).sum()) == 8
        except Exception as error:
            return _first_line(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        return None if right else "it computes garbage"

    def _open(self) -> None:
        """By its UUID: CUDA_VISIBLE_DEVICES and MIG give a GPU another number in torch than in NVML."""
        pynvml.nvmlInit()
        uuid = self.uuid()
        try:
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError_NotFound:
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
        with suppress(pynvml.NVMLError):  # not in every container, nor for a part of a GPU
            events = pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(self._handle, pynvml.nvmlEventTypeXidCriticalError, events)
            self._events = events

    def _next_xid(self, wait: float) -> str | None:
        if self._events is None:
            time.sleep(wait)
            return None
        try:
            event = pynvml.nvmlEventSetWait_v2(self._events, int(wait * 1000))
        except pynvml.NVMLError_Timeout:
            return None
        xid = int(event.eventData)
        if xid in APPLICATION_XIDS:
            log.warning("Xid %d: an application's fault", xid)
            return None
        return f"Xid {xid}"


def _first_line(error: Exception) -> str:
    """Of what torch says, which may be nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def named(name: str) -> Device:
    """The device of that name. Raises SettingError for one that no worker has."""
    if name == "cpu":
        return Cpu()
    if re.fullmatch(r"cuda(:\d+)?", name):
        return Cuda(name)
    raise SettingError(f"TUNDISH_DEVICE is {name!r}; set it to cpu, or to a GPU such as cuda:0")


def guard(device: Device, on_loss: Callable[[str], None]) -> None:
    """Look at the device in a thread of its own, and call `on_loss` once with what became of it."""

    def look() -> None:
        while (fault := device.fault(LOOK)) is None:
            pass
        on_loss(fault)

    threading.Thread(target=look, name="device", daemon=True).start()


def host_memory() -> int:
    """Bytes of the machine's memory, or of the container's where that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as limit:
            return min(machine, int(limit.read()))
    except (OSError, ValueError):
        return machine
