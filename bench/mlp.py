"""A small network on the CPU: three layers, 2,048 wide, from 16 numbers to 16."""

import torch

from tundish import Batch, Model, Reject

WIDTH = 2_048
NUMBERS = 16


class Mlp(Model[list[float], list[float]]):
    name = "mlp"
    version = "1"
    max_batch = 64

    def load(self, device: str) -> None:
        torch.manual_seed(1)
        layers = torch.nn.Linear(NUMBERS, WIDTH), torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, NUMBERS)
        self.layers = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2]).to(device)
        self.device = device

    @torch.inference_mode()
    def predict(self, batch: Batch[list[float]]) -> list[list[float] | Reject]:
        outputs: list[list[float] | Reject] = self.layers(torch.tensor(list(batch), device=self.device)).cpu().tolist()
        return outputs
