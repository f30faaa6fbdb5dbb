"""Arrival times for a driver: a small regressor over distance, hour, day, rain and stops."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_model

from tundish import Batch, Model, Reject

WEIGHTS = Path(__file__).parent / "weights.safetensors"


@dataclass
class Trip:
    distance_km: float
    hour: int  # of the day, 0 to 23
    weekday: int  # 0 is Monday
    rain: bool
    stops: int  # on the way


@dataclass
class Estimate:
    minutes: float


class Network(torch.nn.Sequential):
    """Six features to the logarithm of minutes."""

    def __init__(self) -> None:
        super().__init__(
            torch.nn.Linear(6, 64), torch.nn.GELU(), torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 1)
        )


def features(trip: Trip) -> list[float]:
    """The hour lies on a circle: 23 is next to 0."""
    turn = 2 * math.pi * trip.hour / 24
    return [
        math.log1p(trip.distance_km),
        math.sin(turn),
        math.cos(turn),
        float(trip.weekday < 5),
        float(trip.rain),
        trip.stops / 5,
    ]


class Arrival(Model[Trip, Estimate]):
    name = "eta"
    version = "1"
    max_batch = 256
    example = Trip(distance_km=7.5, hour=8, weekday=0, rain=True, stops=1)

    def load(self, device: str) -> None:
        self.device = device
        self.network = Network().to(device).eval()
        load_model(self.network, WEIGHTS, device=device)

    @torch.inference_mode()
    def predict(self, batch: Batch[Trip]) -> list[Estimate | Reject]:
        wrong = [fault(trip) for trip in batch]
        rows = torch.tensor([features(trip) if not why else [0.0] * 6 for trip, why in zip(batch, wrong, strict=True)])
        minutes = self.network(rows.to(self.device)).exp().squeeze(1).cpu().tolist()
        return [Reject(why) if why else Estimate(each) for each, why in zip(minutes, wrong, strict=True)]


def fault(trip: Trip) -> str | None:
    """Why there is no such trip."""
    if not 0 <= trip.distance_km <= 2000:
        return "distance_km is from 0 to 2000"
    if not (0 <= trip.hour <= 23 and 0 <= trip.weekday <= 6 and 0 <= trip.stops <= 50):
        return "hour is from 0 to 23, weekday from 0 to 6, stops from 0 to 50"
    return None
