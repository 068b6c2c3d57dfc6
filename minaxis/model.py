"""The transformer: a Llama-style decoder, exact and plain.

    tokens -> embed -> [ x + attention(norm(x)) ; x + mlp(norm(x)) ] * L -> norm -> logits

The running tensor `x` is the *residual stream*: every block reads it and adds to it. Everything
else in minaxis reads or edits this tensor, so a block returns it and nothing else. Parameters have
Hugging Face's names (`model.layers.0.self_attn.q_proj.weight`), so open weights load unrenamed.

Shapes: B batch, T new tokens, S tokens seen so far (S >= T with a cache), D model width,
H query heads, K key heads (H is a multiple of K), Dh head width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """The numbers that define a model; names follow Hugging Face's `config.json`."""

    vocab_size: int  # V
    hidden_size: int  # D, width of the residual stream
    intermediate_size: int  # width of the MLP's hidden layer
    num_hidden_layers: int  # L, number of blocks
    num_attention_heads: int  # H
    num_key_value_heads: int  # K; K < H is grouped-query attention
    head_dim: int  # Dh; usually D / H, but not in every family
    max_position_embeddings: int = 2048  # the longest context, in tokens
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0  # the rotary embedding's longest wavelength is about 2 pi theta
    rope_scaling: Callable[[Tensor], Tensor] | None = None  # changes the frequencies (Llama 3.x)
    qkv_bias: bool = False  # query, key and value projections add a bias (Qwen 2)
    output_bias: bool = False  # the attention's output projection adds a bias
    qk_norm: bool = False  # RMSNorm over each head's queries and keys, before rotation (Qwen 3)
    tie_word_embeddings: bool = True  # the output matrix is the input embedding
    name: str = "unnamed"  # written into axis files: an axis belongs to one model

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary embeddings, got {self.head_dim}")


class Cache(Protocol):
    """What the model, and the loop that samples, ask of a KV cache (generation.py has one)."""

    length: int  # tokens stored, padding included; the next token's column
    max_length: int

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...
    def select_rows(self, rows: Tensor) -> None: ...


Rope = tuple[Tensor, Tensor]  # cos and sin (B, 1, T, Dh) of each position's rotation angles


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the rms taken in float32 over the last dimension."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * h.to(x.dtype)


def rotary(positions: Tensor, config: Config) -> Rope:
    """cos and sin of the rotation angles of positions (B, T), in float32."""
    # Computed at every call: `model.to(bfloat16)` would round the angles in a buffer.
    half = torch.arange(0, config.head_dim, 2, device=positions.device).float()
    frequencies = 1.0 / config.rope_theta ** (half / config.head_dim)  # (Dh/2,)
    if config.rope_scaling:
        frequencies = config.rope_scaling(frequencies)
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, Dh/2)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Turn each pair (x[i], x[i + Dh/2]) of x (B, heads, T, Dh) by its position's angle."""
    cos, sin = rope
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def attention_mask(queries: int, keys: int, padding: Tensor | None, x: Tensor) -> Tensor | None:
    """What is added to the scores: 0 where a query may see a key, minus infinity elsewhere.

    (B, 1, T, S) or (T, S), or None where every key may be seen. The queries are the last columns
    of the keys. A query sees itself and what came before it, but no left padding of its row.
    (Padding sees itself: the softmax of a query that sees no key would be NaN.)
    """
    if queries == 1 and padding is None:
        return None
    column = torch.arange(keys, device=x.device)
    query = column[-queries:, None]  # (T, 1)
    mask = column <= query  # (T, S)
    if padding is not None:
        real = column >= padding[:, None, None, None]  # (B, 1, 1, S)
        mask = mask & (real | (column == query))
    return torch.where(mask, 0.0, -torch.inf).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query self-attention: H query heads share K heads of keys and values."""

    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        wide = config.num_attention_heads * config.head_dim
        narrow = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, wide, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, narrow, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, narrow, bias=config.qkv_bias)
        self.o_proj = nn.Linear(wide, config.hidden_size, bias=config.output_bias)
        norm = RMSNorm if config.qk_norm else nn.Identity  # Identity ignores its arguments
        self.q_norm = norm(config.head_dim, config.rms_norm_eps)
        self.k_norm = norm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None, cache: Cache | None) -> Tensor:
        def heads(y: Tensor) -> Tensor:  # (B, T, heads * Dh) -> (B, heads, T, Dh)
            return y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        q, k = rotate(self.q_norm(q), rope), rotate(self.k_norm(k), rope)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, K, S, Dh)
        y = self.attend(q, k, v, mask)  # (B, H, T, Dh)
        return self.o_proj(y.transpose(1, 2).flatten(2))  # (B, T, D)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """softmax(q k^T / sqrt(Dh) + mask) v, (B, H, T, Dh)."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


class MLP(nn.Module):
    """SwiGLU: one projection gates the other."""

    activation = staticmethod(F.silu)

    def __init__(self, config: Config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer. Its output is the residual stream that minaxis reads and edits."""

    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None, cache: Cache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))  # (B, T, D)


class Decoder(nn.Module):
    """Token ids to the final, normalised residual stream: everything but the output matrix."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        zeros = torch.zeros(config.vocab_size, config.hidden_size)  # to draw random ones takes 1 s
        self.embed_tokens = nn.Embedding.from_pretrained(zeros, freeze=False)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, ids: Tensor, cache: Cache | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """As `Transformer`, but returns hidden states (B, T, D)."""
        start, limit = 0, self.config.max_position_embeddings
        if cache is not None:
            start, limit = cache.length, min(limit, cache.max_length)
        end = start + ids.shape[1]
        if end > limit:
            raise ValueError(
                f"{end} tokens do not fit into the context or the KVCache, which holds {limit}: "
                "shorten the prompt, or allocate a larger KVCache"
            )
        positions = torch.arange(start, end, device=ids.device)[None]  # (1, T)
        if padding is not None:  # the first real token of every row is at position 0
            positions = (positions - padding[:, None]).clamp(min=0)  # (B, T)
        x = self.embed_tokens(ids)  # (B, T, D)
        cos, sin = (table.to(x.dtype) for table in rotary(positions, self.config))
        mask = attention_mask(ids.shape[1], end, padding, x)
        for block in self.layers:
            x = block(x, (cos, sin), mask, cache)
        if cache is not None:
            cache.length = end
        return self.norm(x)


class Transformer(nn.Module):
    """A decoder and its output matrix.

    `model(ids, cache, padding)` takes ids (B, T) and returns logits (B, T, V). It holds no state
    between calls; with a `KVCache` the ids continue what the cache holds. `padding` (B,) counts
    the columns at the left of each row that only fill it. `last` asks for the logits of that many
    columns at the right; 0 for all of them.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Let input and output share one matrix where the config says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> "Transformer":
        """Random weights, as before training: matrices normal (std 0.02), norms 1, biases 0."""
        for name, p in self.named_parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.02)
            else:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
        return self

    @property
    def device(self) -> torch.device:
        """Where token ids must be."""
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights and of the residual stream."""
        return self.model.embed_tokens.weight.dtype

    def forward(
        self, ids: Tensor, cache: Cache | None = None, padding: Tensor | None = None, last: int = 0
    ) -> Tensor:
        return self.lm_head(self.model(ids, cache, padding)[:, -last:])  # -0 is 0: all columns
