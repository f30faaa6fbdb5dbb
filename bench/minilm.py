"""The sentence model without cost control, and as a GPU takes it: half precision, npy out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from examples.minilm import Embed, Text
from tundish import Batch, Model, Reject


class EmbedInOrder(Embed):
    """Takes its sentences as they come."""

    name = "minilm-in-order"

    def cost(self, item: Text) -> int:
        return 1


class EmbedHalf(Model[Text, Tensor]):
    """The same weights and the same sums; half precision on a GPU, single on a CPU."""

    name = "minilm-half"
    version = "1"
    max_batch = 256

    def load(self, device: str) -> None:
        self.embed = Embed()
        self.embed.load(device)
        self.encoder = self.embed.encoder
        if device.startswith("cuda"):
            self.encoder.half()

    def collate(self, items: Sequence[Text]) -> tuple[Tensor, Tensor]:
        return self.embed.collate(items)

    @torch.inference_mode()
    def predict(self, batch: Batch[Text]) -> list[Tensor | Reject]:
        ids, mask = batch.collated
        hidden = self.encoder(ids, mask)
        weight = mask.unsqueeze(-1)
        mean = (hidden * weight).sum(1, dtype=torch.float32) / weight.sum(1)
        return list(torch.nn.functional.normalize(mean, dim=1).half())
