"""BERT's encoder (Devlin et al. 2018) in plain torch: transformers' took 2.5 s more to import."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional


class Layer(nn.Module):
    """Self-attention, then a feed-forward net, each added to its input and normalised."""

    def __init__(self, width: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.mixed = nn.LayerNorm(width, epsilon)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.narrowed = nn.LayerNorm(width, epsilon)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (self._split(each(hidden)) for each in (self.query, self.key, self.value))
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = self.mixed(hidden + self.mix(seen.transpose(1, 2).flatten(2)))
        inner: Tensor = self.narrowed(hidden + self.narrow(functional.gelu(self.widen(hidden))))
        return inner

    def _split(self, projected: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, width of a head)."""
        batch, tokens, width = projected.shape
        return projected.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)


#: A layer's parts by their names in published weights.
_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mix": "attention.output.dense",
    "mixed": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "narrowed": "output.LayerNorm",
}


class Encoder(nn.Module):
    """Token ids (batch, tokens) and their mask (1 where there is one) to hidden states (batch, tokens, width)."""

    def __init__(self, weights: Path) -> None:
        """Reads `config.json` and `model.safetensors` of a folder."""
        super().__init__()
        config = json.loads((weights / "config.json").read_text())
        width, epsilon = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.kinds = nn.Embedding(config["type_vocab_size"], width)
        self.embedded = nn.LayerNorm(width, epsilon)
        self.layers = nn.ModuleList(
            Layer(width, config["num_attention_heads"], config["intermediate_size"], epsilon)
            for _ in range(config["num_hidden_layers"])
        )
        self.load_state_dict(_renamed(load_file(weights / "model.safetensors"), len(self.layers)))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        # Every token is of kind 0: there is one sentence.
        hidden = self.embedded(self.words(ids) + self.positions(places) + self.kinds.weight[0])
        seen = mask[:, None, None, :].bool()
        for layer in self.layers:
            hidden = layer(hidden, seen)
        states: Tensor = hidden
        return states


def _renamed(published: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Published weights under our names."""
    names = {
        "words": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "kinds": "embeddings.token_type_embeddings",
        "embedded": "embeddings.LayerNorm",
    }
    for number in range(layers):
        names |= {f"layers.{number}.{ours}": f"encoder.layer.{number}.{theirs}" for ours, theirs in _PARTS.items()}
    return {
        f"{ours}.{kind}": published[f"{theirs}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in published
    }
