"""Three networks, of which a device of TWO bytes holds two; and a worker that swaps them as plain least-recently-used
does: whoever's job is the oldest is brought, and whoever ran the longest ago leaves.

They are loaded as weights ought to be: read from a file whose hash is checked.
"""

import os
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load, save_file

from bench.mlp import NUMBERS, Mlp
from workers.__main__ import main
from workers.batch import Target, Waiting
from workers.turn import Standing, Turn

WIDTH = 4_096
#: Bytes of two networks.
TWO = 2 * 4 * (WIDTH * (WIDTH + 2 * NUMBERS + 2) + NUMBERS)


class Wide(Mlp):
    """The file is `weights`, and its hash `hash`, in the folder SWAP_WEIGHTS."""

    version = "1"
    max_batch = 8

    def load(self, device: str) -> None:
        folder = Path(os.environ["SWAP_WEIGHTS"])
        read = (folder / "weights").read_bytes()
        if sha256(read).hexdigest() != (folder / "hash").read_text():
            raise ValueError("these are not the weights that were pinned")
        torch.set_num_threads(1)  # the database and the load have the other cores
        self.device = device
        self.layers = _network().to(device)
        self.layers.load_state_dict(load(read))


class First(Wide):
    name = "first"


class Second(Wide):
    name = "second"


class Third(Wide):
    name = "third"


def write_weights(folder: Path) -> None:
    torch.manual_seed(1)
    network = _network()
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.01)
    save_file(network.state_dict(), folder / "weights")
    (folder / "hash").write_text(sha256((folder / "weights").read_bytes()).hexdigest())


def _network() -> torch.nn.Sequential:
    """As that of `bench/mlp.py`, with weights that are yet to come."""
    sizes = (NUMBERS, WIDTH), (WIDTH, WIDTH), (WIDTH, NUMBERS)
    layers = [torch.nn.Linear(*size, device="meta").to_empty(device="cpu") for size in sizes]
    return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])


def least_recently_used(
    shelf: Mapping[Target, Standing], waiting: Mapping[Target, Waiting], budget: float, now: float
) -> Turn:
    target = min(waiting, key=lambda each: waiting[each].since, default=None)
    if target is None or shelf[target].there:
        return Turn()
    need = shelf[target].size - budget + sum(one.size for one in shelf.values() if one.there)
    leaving = []
    for each in sorted((each for each in shelf if shelf[each].there), key=lambda each: shelf[each].used):
        if need > 0:
            leaving.append(each)
            need -= shelf[each].size
    return Turn(target, tuple(leaving))


if __name__ == "__main__":
    sys.exit(main(policy=least_recently_used))
