"""Models with real weights for a GPU, and a process that runs one of them."""

import sys
from typing import ClassVar

import torch

from tundish import Batch, Model, Reject
from tundish.execute import DeviceLost, run
from tundish.outcome import Item
from tundish.runtime import Runtime
from tundish.testing import Recorder
from workers.gpu import named

DEVICE = "cuda:0"
#: Of the weights of each Layered.
BYTES = 4 * (512 * 2048 + 2048 + 2048 * 8 + 8)


class Layered(Model[int, float]):
    """Two layers, of which the seed is the model's name; writes down when it is loaded."""

    name = "layered"
    version = "1"
    memory = BYTES
    max_batch = 8
    example = 1
    loads: ClassVar[list[str]] = []

    def load(self, device: str) -> None:
        self.loads.append(self.name)
        torch.manual_seed(sum(self.name.encode()))
        layers = torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 8)
        self.net = torch.nn.Sequential(*layers).to(device).eval()
        self.device = device

    @torch.inference_mode()
    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        inputs = torch.tensor([[float(item)] * 512 for item in batch]).to(self.device)
        return [float(each) for each in self.net(inputs).float().sum(1)]


class Asserting(Model[int, float]):
    """Reads beyond a table, which a kernel asserts that nobody does. What is above 9 says nothing of it."""

    name = "asserting"
    version = "1"

    def load(self, device: str) -> None:
        self.table = torch.zeros(4, device=device)

    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        try:
            return [float(each) for each in self.table[torch.tensor(list(batch), device=self.table.device)]]
        except RuntimeError as error:
            if max(batch) > 9:
                raise ValueError("no such entry") from error
            raise


def asserted(item: int) -> str:
    """What becomes of one item of Asserting, and what fault the device has then."""
    device, model = named(DEVICE), Asserting()
    assert device.fault() is None  # as the guard looked before
    model.load(DEVICE)
    try:
        [result] = run(model, [Item(b"", "application/json")], [item], Recorder(), Runtime(DEVICE))
    except DeviceLost:
        result = "lost"
    return f"{result} {device.fault()}"


def predicted(*items: int) -> str:
    """What Layered gives, once a line has come; says before that it has loaded."""
    model = Layered()
    model.load(DEVICE)
    print("loaded", flush=True)
    sys.stdin.readline()
    return str(outputs(model, *items))


def outputs(model: Model[int, float], *items: int) -> list[float]:
    """What one batch of a model gives, as it is tuned."""
    return list(model.predict(Batch(items, Recorder(), range(len(items)))))  # type: ignore[arg-type]  # rejects none


if __name__ == "__main__":
    _, word, *items = sys.argv
    print(asserted(int(items[0])) if word == "asserted" else predicted(*map(int, items)))
