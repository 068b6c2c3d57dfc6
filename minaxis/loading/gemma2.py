"""Gemma 2: what it does differently from the plain decoder of model.py.

    x = sqrt(D) * embed(tokens)
    x = x + norm(attention(norm(x)))        a norm before and after each part
    x = x + norm(mlp(norm(x)))
    logits = softcap(norm(x) @ embed^T)

Every norm multiplies by 1 + weight. Scores and logits are soft-capped: c * tanh(. / c) keeps them
within +-c. Blocks 0, 2, 4, ... see only the latest `sliding_window` tokens, the others all.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minaxis.model import MLP, Attention, Block, Config, Cache, RMSNorm, Transformer


@dataclass(frozen=True)
class Gemma2Config(Config):
    """The numbers that only Gemma 2 has."""

    sliding_window: int = 4096  # tokens that blocks 0, 2, 4, ... see, the query's own included
    query_pre_attn_scalar: float = 256.0  # scores are divided by its root, in place of head_dim's
    attn_logit_softcapping: float | None = 50.0  # c for the attention scores
    final_logit_softcapping: float | None = 30.0  # c for the logits


def softcap(x: Tensor, c: float | None) -> Tensor:
    """Squash x smoothly into -c .. c; None leaves it as it is."""
    return x if c is None else c * torch.tanh(x / c)


class GemmaNorm(RMSNorm):
    """x / rms(x) * (1 + weight), in float32 to the end."""

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + self.eps)
        return (h * (1 + self.weight.float())).to(x.dtype)


class GemmaAttention(Attention):
    """Soft-capped scores, and every other layer looks no further back than its window.

    Written out, because PyTorch's fused attention has no place for the soft cap.
    """

    def __init__(self, config: Gemma2Config, layer: int):
        super().__init__(config, layer)
        self.scale = config.query_pre_attn_scalar**-0.5
        self.cap = config.attn_logit_softcapping
        self.window = config.sliding_window if layer % 2 == 0 else None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if self.window is not None:
            column = torch.arange(k.shape[2], device=k.device)
            near = column > column[-q.shape[2] :, None] - self.window  # (T, S)
            near = torch.where(near, 0.0, -torch.inf)
            mask = near if mask is None else mask + near
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)  # (B, H, S, Dh)
        scores = softcap(q @ k.transpose(2, 3) * self.scale, self.cap)  # (B, H, T, S)
        if mask is not None:
            scores = scores + mask
        return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v


class GemmaMLP(MLP):
    """Gated by GELU (its tanh approximation) instead of SiLU."""

    activation = staticmethod(partial(F.gelu, approximate="tanh"))


class GemmaBlock(Block):
    """One layer; what a part adds to the residual stream is normalised once more."""

    def __init__(self, config: Gemma2Config, layer: int):
        nn.Module.__init__(self)
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = GemmaNorm(width, eps)
        self.self_attn = GemmaAttention(config, layer)
        self.post_attention_layernorm = GemmaNorm(width, eps)
        self.pre_feedforward_layernorm = GemmaNorm(width, eps)
        self.mlp = GemmaMLP(config)
        self.post_feedforward_layernorm = GemmaNorm(width, eps)

    def forward(self, x: Tensor, rope, mask: Tensor | None, cache: Cache | None) -> Tensor:
        y = self.self_attn(self.input_layernorm(x), rope, mask, cache)
        x = x + self.post_attention_layernorm(y)
        y = self.mlp(self.pre_feedforward_layernorm(x))
        return x + self.post_feedforward_layernorm(y)  # (B, T, D)


class ScaledEmbedding(nn.Embedding):
    """Embeddings times sqrt(D), a factor rounded to the weights' dtype as in training."""

    def forward(self, ids: Tensor) -> Tensor:
        scale = torch.tensor(self.embedding_dim**0.5, dtype=self.weight.dtype)
        return super().forward(ids) * scale.item()


class CappedHead(nn.Linear):
    """The output matrix, its logits soft-capped."""

    def __init__(self, config: Gemma2Config):
        super().__init__(config.hidden_size, config.vocab_size, bias=False)
        self.cap = config.final_logit_softcapping

    def forward(self, x: Tensor) -> Tensor:
        return softcap(super().forward(x), self.cap)


class Gemma2(Transformer):
    """`Transformer` with Gemma 2's parts in the places of its own."""

    def __init__(self, config: Gemma2Config):
        super().__init__(config)
        self.model.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(
            GemmaBlock(config, i) for i in range(config.num_hidden_layers)
        )
        self.model.norm = GemmaNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = CappedHead(config)
        self.tie()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> "Gemma2":
        super().initialise(generator)
        for module in self.modules():
            if isinstance(module, GemmaNorm):
                module.weight.zero_()  # 1 + 0
        return self
