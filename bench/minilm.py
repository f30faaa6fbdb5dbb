"""The sentence model without cost control."""

from examples.minilm import Embed, Text


class EmbedInOrder(Embed):
    """Takes its sentences as they come."""

    name = "minilm-in-order"

    def cost(self, item: Text) -> int:
        return 1
