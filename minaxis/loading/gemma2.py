"""Gemma 2: what it does differently from the decoder of model.py.

    x = sqrt(D) * embed(tokens)
    x = x + norm(attention(norm(x)))        a norm before and after each part
    x = x + norm(mlp(norm(x)))
    logits = softcap(norm(x) @ embed^T)

Every norm multiplies by 1 + weight. Attention scores and logits are soft-capped: c * tanh(x / c)
keeps x within +-c. Blocks 0, 2, 4, ... see only the latest `sliding_window` tokens. The other
blocks see all tokens.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minaxis.model import MLP, Attention, Block, Cache, Config, RMSNorm, Rope, Transformer


@dataclass(frozen=True)
class Gemma2Config(Config):
    """The numbers that only Gemma 2 has."""

    sliding_window: int = 4096  # tokens that blocks 0, 2, 4, ... see, the query's own included
    query_pre_attn_scalar: float = 256.0  # scores are divided by its root, not by head_dim's
    attn_logit_softcapping: float | None = 50.0  # c for the attention scores
    final_logit_softcapping: float | None = 30.0  # c for the logits


def softcap(x: Tensor, c: float | None) -> Tensor:
    """Squash x smoothly into -c .. c; None leaves it as it is."""
    return x if c is None else c * torch.tanh(x / c)


class GemmaNorm(RMSNorm):
    """x / rms(x) * (1 + weight), rounded to the dtype of x at the end."""

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + self.eps)
        return (h * (1 + self.weight.float())).to(x.dtype)


class GemmaAttention(Attention):
    """Attention with soft-capped scores, and a sliding window in every other layer.

    The arithmetic is written out, because PyTorch's fused attention has no soft cap.
    """

    def __init__(self, config: Gemma2Config, layer: int) -> None:
        super().__init__(config, layer)
        self.scale = config.query_pre_attn_scalar**-0.5
        self.cap = config.attn_logit_softcapping
        self.window = config.sliding_window if layer % 2 == 0 else None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if self.window is not None:
            column = torch.arange(k.shape[2], device=k.device)
            near = column > column[-q.shape[2] :, None] - self.window  # (T, S)
            window_mask = torch.where(near, 0.0, -torch.inf)
            mask = window_mask if mask is None else mask + window_mask
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)  # (B, H, S, Dh)
        scores = softcap(q @ k.transpose(2, 3) * self.scale, self.cap)  # (B, H, T, S)
        if mask is not None:
            scores = scores + mask
        return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v  # (B, H, T, Dh)


class GemmaMLP(MLP):
    """The MLP with GELU (its tanh approximation) instead of SiLU."""

    activation = staticmethod(partial(F.gelu, approximate="tanh"))


class GemmaBlock(Block):
    """One layer. It also normalises what attention and MLP add to the residual stream."""

    def __init__(self, config: Gemma2Config, layer: int) -> None:
        nn.Module.__init__(self)
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = GemmaNorm(width, eps)
        self.self_attn = GemmaAttention(config, layer)
        self.post_attention_layernorm = GemmaNorm(width, eps)
        self.pre_feedforward_layernorm = GemmaNorm(width, eps)
        self.mlp = GemmaMLP(config)
        self.post_feedforward_layernorm = GemmaNorm(width, eps)

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None, cache: Cache | None) -> Tensor:
        y = self.self_attn(self.input_layernorm(x), rope, mask, cache)
        x = x + self.post_attention_layernorm(y)
        y = self.mlp(self.pre_feedforward_layernorm(x))
        return x + self.post_feedforward_layernorm(y)  # (B, T, D)


class ScaledEmbedding(nn.Embedding):
    """Embeddings times sqrt(D); the factor is rounded to the weights' dtype, as in training."""

    def forward(self, ids: Tensor) -> Tensor:
        scale = torch.tensor(self.embedding_dim**0.5, dtype=self.weight.dtype)
        return super().forward(ids) * scale.item()


class Gemma2(Transformer):
    """`Transformer` with Gemma 2's parts in place of its own."""

    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config)
        self.model.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(
            GemmaBlock(config, i) for i in range(config.num_hidden_layers)
        )
        self.model.norm = GemmaNorm(config.hidden_size, config.rms_norm_eps)
        self.cap = config.final_logit_softcapping
        self.tie()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> "Gemma2":
        super().initialise(generator)
        for module in self.modules():
            if isinstance(module, GemmaNorm):
                module.weight.zero_()  # 1 + 0
        return self

    def forward(
        self, ids: Tensor, cache: Cache | None = None, padding: Tensor | None = None, last: int = 0
    ) -> Tensor:
        return softcap(super().forward(ids, cache, padding, last), self.cap)
