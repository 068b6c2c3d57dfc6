"""OLMo 2: what it does differently from the decoder of model.py.

    x = x + norm(attention(x))        a norm after each part, none before
    x = x + norm(mlp(x))

Queries and keys are normalised, all heads together.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from minaxis.model import MLP, Attention, Block, Cache, Config, RMSNorm, Rope, Transformer


@dataclass(frozen=True)
class Olmo2Config(Config):
    """OLMo 2 has no numbers of its own; the class says which blocks to build."""


class NormOverHeads(RMSNorm):
    """RMSNorm of queries or keys over all heads: (B, heads, T, Dh) to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        together = super().forward(x.transpose(1, 2).flatten(2))  # (B, T, heads * Dh)
        return together.unflatten(-1, (x.shape[1], -1)).transpose(1, 2)


class Olmo2Block(Block):
    """One layer. It normalises what attention and MLP add to the residual stream."""

    def __init__(self, config: Config, layer: int) -> None:
        nn.Module.__init__(self)
        eps = config.rms_norm_eps
        self.self_attn = Attention(config, layer)
        self.self_attn.q_norm = NormOverHeads(config.num_attention_heads * config.head_dim, eps)
        self.self_attn.k_norm = NormOverHeads(config.num_key_value_heads * config.head_dim, eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps)
        self.mlp = MLP(config)
        self.post_feedforward_layernorm = RMSNorm(config.hidden_size, eps)

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None, cache: Cache | None) -> Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(x, rope, mask, cache))
        return x + self.post_feedforward_layernorm(self.mlp(x))  # (B, T, D)


class Olmo2(Transformer):
    """`Transformer` with OLMo 2's blocks in place of its own."""

    def __init__(self, config: Olmo2Config) -> None:
        super().__init__(config)
        self.model.layers = nn.ModuleList(
            Olmo2Block(config, i) for i in range(config.num_hidden_layers)
        )
