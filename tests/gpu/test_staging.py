"""Copies beside what a GPU computes."""

from collections.abc import Iterator, Sequence

import pytest
import torch

from tests.gpu.models import DEVICE
from tundish import Batch, Model, Reject, staging
from tundish.testing import run

#: Cycles that a GPU spins for: seconds, and a copy takes microseconds.
LONG = 5_000_000_000


@pytest.fixture
def busy() -> Iterator[torch.cuda.Event]:
    """The device computes; recorded behind that."""
    torch.zeros(1, device=DEVICE)
    with torch.cuda.stream(staging._stream(DEVICE, "there")):
        torch.zeros(1, device=DEVICE)  # memory that is asked for the first time is waited for
    torch.cuda.synchronize()
    torch.cuda._sleep(LONG)
    event = torch.cuda.Event()
    event.record()
    yield event
    torch.cuda.synchronize()


def test_what_is_collated_ahead_does_not_wait_for_the_batch_before(busy: torch.cuda.Event) -> None:
    with staging.beside(DEVICE):
        placed = staging.placed({"ids": torch.arange(4)}, DEVICE)
    assert not busy.query()
    assert placed["ids"].is_cuda
    torch.cuda.synchronize()
    assert placed["ids"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("sizes", [[4, 4, 4], [4, 2, 3]])
def test_results_are_fetched_while_the_next_batch_runs(sizes: list[int]) -> None:
    results = [torch.arange(size, device=DEVICE) for size in sizes]
    staging.fetched(results)  # memory that is asked for the first time is waited for
    staging.settle(results)
    torch.cuda._sleep(LONG)
    event = torch.cuda.Event()
    event.record()
    fetched = staging.fetched(results)
    assert not event.query()
    assert [each.tolist() for each in fetched] == [list(range(size)) for size in sizes]
    torch.cuda.synchronize()


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
