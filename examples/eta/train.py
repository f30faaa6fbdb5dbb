"""`python -m examples.eta.train`: make trips, train on them, write weights.safetensors, print the error on others."""

import math
import random

import torch
from safetensors.torch import save_model

from examples.eta import WEIGHTS, Network, Trip, features


def drive(trip: Trip, chance: random.Random) -> float:
    """Minutes that a trip takes in our town: rush hours on weekdays, rain, two minutes a stop, and luck."""
    rush = max(math.exp(-((trip.hour - peak) ** 2) / 4) for peak in (8, 17)) if trip.weekday < 5 else 0.0
    speed = 32 + 18 * (1 - math.exp(-trip.distance_km / 15))  # km/h: longer trips use faster roads
    speed *= (1 - 0.45 * rush) * (0.85 if trip.rain else 1.0)
    return (4 + 60 * trip.distance_km / speed + 2 * trip.stops) * math.exp(chance.gauss(0, 0.08))


def trips(count: int, seed: int) -> list[tuple[Trip, float]]:
    chance = random.Random(seed)
    made = [
        Trip(chance.expovariate(1 / 9), chance.randrange(24), chance.randrange(7), chance.random() < 0.3, stops)
        for stops in (chance.randrange(5) for _ in range(count))
    ]
    return [(trip, drive(trip, chance)) for trip in made]


def tensors(pairs: list[tuple[Trip, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([features(trip) for trip, _ in pairs]), torch.tensor([[minutes] for _, minutes in pairs]).log()


def train(steps: int = 3000) -> Network:
    torch.manual_seed(1)
    inputs, targets = tensors(trips(20000, seed=1))
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.randint(len(inputs), (512,))
        loss = torch.nn.functional.huber_loss(network(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"step {step:5d}: loss {loss.item():.4f}")
    return network


@torch.inference_mode()
def errors(network: Network, seed: int) -> tuple[float, float]:
    """The mean error on new trips, as a share of the minutes: the network's, and of the one speed that fits best."""
    pairs = trips(5000, seed)
    inputs, targets = tensors(pairs)
    minutes = targets.exp()
    distances = torch.tensor([[trip.distance_km] for trip, _ in pairs])
    pace = torch.linalg.lstsq(torch.cat([distances, torch.ones_like(distances)], 1), minutes).solution
    simple = torch.cat([distances, torch.ones_like(distances)], 1) @ pace
    share = [((guess - minutes).abs() / minutes).mean().item() for guess in (network(inputs).exp(), simple)]
    return share[0], share[1]


if __name__ == "__main__":
    trained = train()
    save_model(trained, str(WEIGHTS))
    ours, simple = errors(trained, seed=2)
    print(f"mean error on new trips: {ours:.1%}; by distance alone: {simple:.1%}; wrote {WEIGHTS.name}")
