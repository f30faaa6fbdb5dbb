"""What an exception says of the device. By name and message, so that torch is not imported to ask."""

import gc
import sys


def out_of_memory(error: BaseException) -> bool:
    """The batch was too large for the device's memory (torch.OutOfMemoryError) or the host's."""
    names = {each.__name__ for each in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "CUDA error: out of memory" in str(error)


def lost(error: BaseException) -> bool:
    """The CUDA context is poisoned: an error such as an illegal memory access or a device-side assert is sticky, every
    later call in this process fails or gives garbage."""
    return "CUDA error: " in str(error) and not out_of_memory(error)


def free() -> None:
    """Give back what torch caches of the device's memory."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
