"""Copies beside what a GPU computes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from tests.gpu.models import DEVICE
from tundish import Batch, Model, Reject, staging
from tundish.testing import run

#: torch's stubs leave types out.
CUDA: Any = torch.cuda
#: Cycles that a GPU spins for: seconds, and a copy takes microseconds.
LONG = 5_000_000_000


@pytest.fixture
def busy() -> Iterator[Callable[[], Callable[[], bool]]]:
    """Lets the device compute for long; what that gives tells whether it still does."""

    def begin() -> Callable[[], bool]:
        CUDA.synchronize()
        CUDA._sleep(LONG)
        behind = CUDA.Event()
        behind.record()
        return lambda: not behind.query()

    yield begin
    CUDA.synchronize()


def test_what_is_collated_ahead_does_not_wait_for_the_batch_before(busy: Callable[[], Callable[[], bool]]) -> None:
    def placed() -> Any:
        with staging.beside(DEVICE):
            return staging.placed({"ids": torch.arange(4)}, DEVICE)["ids"]

    placed()  # memory that is asked for the first time is waited for
    computes = busy()
    ids = placed()
    assert computes()
    assert ids.is_cuda
    CUDA.synchronize()
    assert ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("sizes", [[4, 4, 4], [4, 2, 3]])
def test_results_are_fetched_while_the_next_batch_runs(
    busy: Callable[[], Callable[[], bool]], sizes: list[int]
) -> None:
    results = [torch.arange(size, device=DEVICE) for size in sizes]
    staging.settle(DEVICE)
    staging.fetched(results)  # memory that is asked for the first time is waited for
    computes = busy()
    fetched = staging.fetched(results)
    assert computes()
    assert [each.tolist() for each in fetched] == [list(range(size)) for size in sizes]


class Tenfold(Model[int, torch.Tensor]):
    name = "tenfold"
    version = "1"
    max_batch = 4

    def collate(self, items: Sequence[int]) -> torch.Tensor:
        return torch.tensor(items)

    def predict(self, batch: Batch[int]) -> list[torch.Tensor | Reject]:
        assert batch.collated.is_cuda
        return list(10 * batch.collated)


def test_a_model_computes_with_what_it_has_collated_and_gives_tensors_of_the_device() -> None:
    results = run(Tenfold, [1, 2, 3, 4, 5], DEVICE)
    assert [int(each) for each in results if isinstance(each, torch.Tensor)] == [10, 20, 30, 40, 50]
