"""What an exception says of the device. torch is asked only where it is there: nothing imports it to ask."""

import gc
import re
import sys
from collections.abc import Callable

#: What CUDA, and the libraries on it, say where the device's memory is short; and torch, where the host's is.
_SHORT = re.compile(
    r"cu(da|dnn|blas|fft|sparse|solver).*(out.of.memory|alloc\w*_failed)|DefaultCPUAllocator: (can't alloc|not enough)",
    re.IGNORECASE,
)
#: What they say where nobody has to ask the device. Under many others stands a hint that names device-side assertions.
_STICKY = re.compile(
    "illegal memory access was encountered|device-side assert triggered|unspecified launch failure|misaligned address"
)


def said(error: object) -> str:
    """Its text, and that of what cannot say any: its type's name."""
    try:
        return str(error)
    except Exception:
        return type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """The batch was too large for the device's memory (torch.OutOfMemoryError) or the host's."""
    names = {each.__name__ for each in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"} or _SHORT.search(said(error)))


def poisoned() -> bool:
    """Whether a device that torch holds memory of can run nothing more in this process: what ails it is raised again
    whenever it is waited for."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        for index in range(torch.cuda.device_count()):
            if torch.cuda.memory_reserved(index):
                torch.cuda.synchronize(index)
    except RuntimeError:
        return True
    return False


def lost(error: BaseException, poisoned: Callable[[], bool] = poisoned) -> bool:
    """The CUDA context is poisoned: an error such as an illegal memory access or a device-side assert is sticky, every
    later call in this process fails or gives garbage. Few texts tell; after any other the device is asked."""
    return not out_of_memory(error) and (bool(_STICKY.search(said(error))) or poisoned())


def free() -> None:
    """Give back what torch caches of the device's memory, and of the host's that is pinned for it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.accelerator.empty_host_cache()
