"""What goes wrong on a GPU: its memory is short, a kernel asserts, another process is there too."""

import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from tests.gpu.models import DEVICE, Layered, outputs
from tests.local import TREE
from tundish import Batch, Model, Reject
from tundish.device import poisoned
from tundish.execute import run
from tundish.job import Code
from tundish.outcome import Failed, Item
from tundish.runtime import Ceilings, Runtime
from tundish.testing import Recorder
from workers.gpu import Cuda

PROCESS = [sys.executable, "-m", "tests.gpu.models"]


def ran(model: Model[Any, Any], count: int, ceilings: Ceilings) -> list[Any]:
    return run(model, [Item(b"1", "application/json")] * count, [1] * count, Recorder(), Runtime(DEVICE, ceilings))


def test_a_gpu_that_is_there_computes_and_has_no_fault() -> None:
    device = Cuda(DEVICE)
    assert device.probe() is None
    assert device.fault() is None
    assert device.fault(0.1) is None
    total, used = device.memory() or (0, 0)
    assert 0 < used < total


def test_a_batch_that_memory_does_not_hold_is_halved_and_what_fits_is_remembered() -> None:
    class Large(Model[int, int]):
        """Each item takes two fifths of the memory that was free."""

        name = "large"
        version = "1"
        max_batch = 4

        def __init__(self) -> None:
            self.each = torch.cuda.mem_get_info(DEVICE)[0] * 2 // 5
            self.sizes: list[int] = []

        def predict(self, batch: Batch[int]) -> list[int | Reject]:
            self.sizes.append(len(batch))
            torch.empty(len(batch) * self.each, dtype=torch.uint8, device=DEVICE)
            return list(batch)

    torch.cuda.empty_cache()
    model, ceilings = Large(), Ceilings()
    try:
        assert ran(model, 4, ceilings) == [1, 1, 1, 1]
        assert ran(model, 4, ceilings) == [1, 1, 1, 1]
        assert model.sizes == [4, 2, 2, 2, 2]
        assert not poisoned()
    finally:
        torch.cuda.empty_cache()


def test_an_error_that_is_the_model_s_leaves_the_device_as_it_is() -> None:
    class Wrong(Model[int, int]):
        """Multiplies what does not go together."""

        name = "wrong"
        version = "1"

        def predict(self, batch: Batch[int]) -> list[int | Reject]:
            torch.ones(2, 3, device=DEVICE) @ torch.ones(2, 3, device=DEVICE)
            return list(batch)

    [failed] = ran(Wrong(), 1, Ceilings())
    assert isinstance(failed, Failed)
    assert failed.code is Code.MODEL_ERROR
    assert int(torch.ones(8, device=DEVICE).sum()) == 8


@pytest.mark.parametrize(("item", "becomes"), [("1", "0.0 None"), ("5", "lost None"), ("10", "lost None")])
def test_a_kernel_that_asserts_poisons_the_process_whatever_the_model_makes_of_it(item: str, becomes: str) -> None:
    done = subprocess.run([*PROCESS, "asserted", item], cwd=TREE, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == becomes, done.stderr


def test_two_processes_share_a_device() -> None:
    model = Layered()
    model.load(DEVICE)
    expected = str(outputs(model, 1, 2, 3))
    with ExitStack() as stack:
        both = []
        for _ in range(2):
            command = [*PROCESS, "predicted", "1", "2", "3"]
            process = subprocess.Popen(command, cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            both.append(process)
        for process in both:
            assert process.stdout
            assert process.stdout.readline() == "loaded\n"
        assert [process.communicate("go\n", timeout=60)[0].strip() for process in both] == [expected] * 2
