"""SmolLM3: a Llama whose every fourth block does not rotate queries and keys.

Such a block knows no positions. It compares tokens by their content, however far apart they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minaxis.model import Attention, Cache, Config, Rope, Transformer


@dataclass(frozen=True)
class SmolLM3Config(Config):
    """The numbers that only SmolLM3 has."""

    rotates: tuple[bool, ...] = ()  # for each block, whether it rotates queries and keys


class StillAttention(Attention):
    """Attention without the rotary embedding."""

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None, cache: Cache | None) -> Tensor:
        cos, sin = rope
        return super().forward(x, (torch.ones_like(cos), torch.zeros_like(sin)), mask, cache)


class SmolLM3(Transformer):
    """`Transformer` with some blocks that do not rotate."""

    def __init__(self, config: SmolLM3Config) -> None:
        super().__init__(config)
        for layer, block in enumerate(self.model.layers):
            if not config.rotates[layer]:
                block.self_attn = StillAttention(config, layer)
