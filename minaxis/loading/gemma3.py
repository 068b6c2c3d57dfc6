"""Gemma 3: what it does differently from Gemma 2.

Queries and keys are normalised, each head by itself. No score and no logit is soft-capped. Of six
blocks, five see only the latest `sliding_window` tokens, and the sixth sees all. The two kinds of
blocks have different rotary bases.
"""

from dataclasses import dataclass

from torch import Tensor

from minaxis.loading.gemma2 import Gemma2, Gemma2Config, GemmaAttention, GemmaBlock, GemmaNorm
from minaxis.model import Cache, Rope


@dataclass(frozen=True)
class Gemma3Config(Gemma2Config):
    """The numbers that only Gemma 3 has. Its `rope_scaling` is a `TwoBases`."""

    slides: tuple[bool, ...] = ()  # for each block, whether it has a sliding window


class Gemma3Attention(GemmaAttention):
    """Attention with norms of queries and keys, and the rotary table of its kind of block."""

    def __init__(self, config: Gemma3Config, layer: int) -> None:
        super().__init__(config, layer)
        self.window = config.sliding_window if config.slides[layer] else None
        self.q_norm = GemmaNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = GemmaNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None, cache: Cache | None) -> Tensor:
        cos, sin = rope  # (2, B, 1, T, Dh): for blocks that see all tokens, and for the others
        kind = 0 if self.window is None else 1
        return super().forward(x, (cos[kind], sin[kind]), mask, cache)


class Gemma3(Gemma2):
    """`Gemma2` with Gemma 3's attention."""

    def __init__(self, config: Gemma3Config) -> None:
        super().__init__(config)
        for layer, block in enumerate(self.model.layers):
            assert isinstance(block, GemmaBlock)
            block.self_attn = Gemma3Attention(config, layer)
