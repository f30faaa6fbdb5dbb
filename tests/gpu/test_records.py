"""Models with cuda_graphs on a GPU: what the next call writes to, and where their weights lie."""

from typing import Any

import pytest
import torch

from tests.gpu.models import DEVICE
from tundish import Batch, Model, Reject
from tundish.testing import Recorder
from tundish.tune import tune

WIDTH = 8192
#: Of the weights.
BYTES = 4 * WIDTH * WIDTH


class Doubled(Model[int, torch.Tensor]):
    """Doubles a row of a number, and gives what its module gave."""

    name = "doubled"
    version = "1"
    cuda_graphs = True

    def load(self, device: str) -> None:
        self.net = torch.nn.Linear(WIDTH, WIDTH, bias=False, device=device)
        with torch.no_grad():
            self.net.weight.zero_().fill_diagonal_(2)

    @torch.inference_mode()
    def predict(self, batch: Batch[int]) -> list[torch.Tensor | Reject]:
        inputs = torch.tensor([[float(item)] * WIDTH for item in batch], device=self.net.weight.device)
        return list(self.net(inputs))


@pytest.fixture(params=[False, True], ids=["recorded", "compiled"])
def model(request: pytest.FixtureRequest) -> Model[int, torch.Tensor]:
    kind: Any = type("Tuned", (Doubled,), {"compile": request.param})
    model: Model[int, torch.Tensor] = kind()
    model.load(DEVICE)
    tune(model, DEVICE)
    return model


def given(model: Model[int, torch.Tensor], item: int) -> Any:
    """Not yet recorded, the first time; recorded, the second; replayed from then on."""
    [result] = model.predict(Batch([item], Recorder(), range(1)))
    return result


def test_results_outlive_the_next_call(model: Model[int, torch.Tensor]) -> None:
    results = [given(model, item) for item in (1, 2, 3, 4)]
    assert [float(each.mean()) for each in results] == [2, 4, 6, 8]


def test_there_is_one_copy_of_the_weights(model: Model[int, torch.Tensor]) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(DEVICE)
    for item in (1, 2, 3, 4):
        given(model, item)
    assert torch.cuda.memory_reserved(DEVICE) - before < BYTES / 2
