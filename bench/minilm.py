"""The sentence model without cost control, and as a GPU takes it: half precision, npy out."""

from typing import TypeAlias

import numpy
import torch
from numpy.typing import NDArray

from examples.minilm import Embed, Text
from tundish import Batch, Model, Reject

Vector: TypeAlias = NDArray[numpy.float16]


class EmbedInOrder(Embed):
    """Takes its sentences as they come."""

    name = "minilm-in-order"

    def cost(self, item: Text) -> int:
        return 1


class EmbedHalf(Model[Text, Vector]):
    """The same weights and the same sums; half precision on a GPU, single on a CPU."""

    name = "minilm-half"
    version = "1"
    max_batch = 256

    def load(self, device: str) -> None:
        self.device = torch.device(device)
        embed = Embed()
        embed.load(device)
        self.tokenizer, self.encoder = embed.tokenizer, embed.encoder
        if self.device.type == "cuda":
            self.encoder.half()

    @torch.inference_mode()
    def predict(self, batch: Batch[Text]) -> list[Vector | Reject]:
        encoded = self.tokenizer.encode_batch([item.text for item in batch])
        ids = self._placed([each.ids for each in encoded])
        mask = self._placed([each.attention_mask for each in encoded])
        hidden = self.encoder(ids, mask)
        weight = mask.unsqueeze(-1)
        mean = (hidden * weight).sum(1, dtype=torch.float32) / weight.sum(1)
        vectors = torch.nn.functional.normalize(mean, dim=1).half()
        return list(vectors.cpu().numpy())

    def _placed(self, numbers: list[list[int]]) -> torch.Tensor:
        tensor = torch.tensor(numbers)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor
