"""Titles for a user, the most promising first: two towers over hashed words, as for a home feed."""

import re
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import torch
from safetensors.torch import load_model

from tundish import Batch, Model, Reject

WEIGHTS = Path(__file__).parent / "weights.safetensors"
BUCKETS = 2048
WIDTH = 32


@dataclass
class Feed:
    history: list[str]  # titles that the user liked
    titles: list[str]  # titles to rank


@dataclass
class Ranking:
    titles: list[str]
    scores: list[float]


class Towers(torch.nn.Module):
    """A title is the mean of its words; a user is the mean of the titles they liked, seen through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.EmbeddingBag(BUCKETS, WIDTH, mode="mean")
        self.user = torch.nn.Linear(WIDTH, WIDTH)

    def title(self, texts: list[str]) -> torch.Tensor:
        words = [buckets(text) for text in texts]
        device = self.words.weight.device
        offsets = torch.tensor([0, *map(len, words[:-1])], device=device).cumsum(0)
        flat = torch.tensor([each for one in words for each in one], dtype=torch.long, device=device)
        return torch.nn.functional.normalize(self.words(flat, offsets), dim=1)

    def forward(self, histories: list[list[str]], titles: list[list[str]]) -> list[torch.Tensor]:
        """The scores of each user's titles."""
        liked = torch.split(self.title([text for one in histories for text in one]), [len(one) for one in histories])
        users = self.user(torch.stack([each.mean(0) for each in liked]))
        shown = torch.split(self.title([text for one in titles for text in one]), [len(one) for one in titles])
        return [each @ user * 8 for each, user in zip(shown, users, strict=True)]


def buckets(text: str) -> list[int]:
    """The words of a text as numbers under BUCKETS; a text of no words is one word of its own."""
    return [crc32(word.encode()) % BUCKETS for word in re.findall(r"\w+", text.lower())] or [0]


class Rank(Model[Feed, Ranking]):
    name = "ranker"
    version = "1"
    max_batch = 64
    example = Feed(["Sourdough bread for beginners"], ["Bread in a cast iron pot", "Ten goals of the season"])

    def load(self, device: str) -> None:
        self.towers = Towers().to(device).eval()
        load_model(self.towers, WEIGHTS, device=device)

    @torch.inference_mode()
    def predict(self, batch: Batch[Feed]) -> list[Ranking | Reject]:
        good = [feed for feed in batch if feed.history and feed.titles]
        scores = iter(self.towers([feed.history for feed in good], [feed.titles for feed in good]) if good else ())
        return [
            _ranked(feed.titles, next(scores).tolist())
            if feed.history and feed.titles
            else Reject("history and titles need one title each")
            for feed in batch
        ]


def _ranked(titles: list[str], scores: list[float]) -> Ranking:
    order = sorted(range(len(titles)), key=lambda index: -scores[index])
    return Ranking([titles[index] for index in order], [scores[index] for index in order])
