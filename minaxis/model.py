"""The transformer: a Llama-style decoder, exact and plain.

    tokens -> embed -> [ x + attention(norm(x)) ; x + mlp(norm(x)) ] * L -> norm -> logits

The running tensor `x` is the *residual stream*: every block reads it and adds to it. Everything
else in minaxis reads or edits that one tensor, so a block returns it and nothing else. Parameter
names are Hugging Face's (`model.layers.0.self_attn.q_proj.weight`): open weights load unrenamed.

Shapes: B batch, T new tokens, S tokens seen so far (S >= T with a cache), D model width,
H query heads, K key heads (H is a multiple of K), Dh head width, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.x stretches its rotary embedding to a longer context than it began with."""

    factor: float  # slow dimensions turn this many times slower
    low_freq_factor: float  # slow: fewer turns than this within the original context
    high_freq_factor: float  # fast, left as they are: more turns than this; between, a blend
    original_max_position_embeddings: int  # the original context, in tokens


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
    # The longest wavelength of the rotary embedding is about 2 pi theta.
    rope_theta: float = 10000.0
    rope_scaling: "RopeScaling | None" = None  # Llama 3: trained on short texts, then on long ones
    qkv_bias: bool = False  # query, key and value projections add a bias (Qwen 2)
    output_bias: bool = False  # and so does the attention's output projection
    qk_norm: bool = False  # RMSNorm over each head's queries and keys, before they turn (Qwen 3)
    tie_word_embeddings: bool = True  # the output matrix is the input embedding
    name: str = "unnamed"  # written into axis files: an axis belongs to one model

    def __post_init__(self):
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary embeddings, got {self.head_dim}")


class KVCache:
    """Keys and values of the tokens seen so far, preallocated; it owns the position.

    Args:
        config: of the model that will use it.
        batch: number of sequences, B.
        max_length: most tokens that it can hold, padding included.
        device, dtype: as the model's weights.
    """

    def __init__(self, config: Config, batch: int, max_length: int, device=None, dtype=None):
        shape = (batch, config.num_key_value_heads, max_length, config.head_dim)
        layers = range(config.num_hidden_layers)
        # One tensor a layer: a row that leaves the batch is then moved one layer at a time.
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.length = 0  # tokens stored; the next token's column
        self.max_length = max_length

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, K, T, Dh) after the tokens seen so far; return all, (B, K, S, Dh)."""
        end = self.length + k.shape[2]
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def begin(self, other: "KVCache", owner: Tensor, padding: Tensor) -> None:
        """Begin each row with what a row of another cache begins with.

        Args:
            other: holds n columns of tokens, without padding at the left.
            owner: (B,) the row of `other` that each row copies.
            padding: (B,) columns at the left that stay empty: n - padding tokens are copied.
        """
        self.length = n = other.length
        column = (torch.arange(n, device=owner.device) - padding[:, None]).clamp(min=0)  # (B, n)
        for mine, theirs in zip(self.keys + self.values, other.keys + other.values, strict=True):
            mine[:, :, :n] = theirs[owner[:, None], :, column].transpose(1, 2)

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order (sequences that have ended leave)."""
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]


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


def rotary(positions: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """cos and sin (B, 1, T, Dh) of each position's rotation angles, in float32.

    A function, not a buffer: `model.to(bfloat16)` would round a buffer's angles.
    """
    half = torch.arange(0, config.head_dim, 2, device=positions.device).float()
    frequencies = 1.0 / config.rope_theta ** (half / config.head_dim)  # (Dh/2,)
    if scaling := config.rope_scaling:
        turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        fast = ((turns - low) / (high - low)).clamp(0, 1)
        frequencies = frequencies * (fast + (1 - fast) / scaling.factor)
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, Dh/2)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + Dh/2]) of x (B, heads, T, Dh) by its angle."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def attention_mask(queries: int, keys: int, padding: Tensor | None, dtype, device) -> Tensor | None:
    """What is added to the scores: 0 where a query may see a key, minus infinity elsewhere.

    (B, 1, T, S) or (T, S), or None where all may be seen. The queries are the last `queries` of
    the `keys` columns. A query sees itself and what came before it, but none of its row's left
    padding. (Padding sees itself: a query that saw nothing would be a softmax over nothing, NaN.)
    """
    if queries == 1 and padding is None:
        return None
    column = torch.arange(keys, device=device)
    query = column[-queries:, None]  # (T, 1)
    mask = column <= query  # (T, S)
    if padding is not None:
        real = column >= padding[:, None, None, None]  # (B, 1, 1, S)
        mask = mask & (real | (column == query))
    return torch.where(mask, 0.0, -torch.inf).to(dtype)


class Attention(nn.Module):
    """Grouped-query self-attention: H query heads share K heads of keys and values."""

    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        wide, narrow = (
            heads * config.head_dim
            for heads in (config.num_attention_heads, config.num_key_value_heads)
        )
        self.q_proj = nn.Linear(config.hidden_size, wide, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, narrow, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, narrow, bias=config.qkv_bias)
        self.o_proj = nn.Linear(wide, config.hidden_size, bias=config.output_bias)
        self.q_norm = self.k_norm = nn.Identity()
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, rope, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        def heads(y):  # (B, T, heads * Dh) -> (B, heads, T, Dh)
            return y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        cos, sin = rope
        q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, K, S, Dh)
        y = self.attend(q, k, v, mask)
        return self.o_proj(y.transpose(1, 2).flatten(2))  # (B, T, D)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """softmax(q k^T / sqrt(Dh) + mask) v, (B, H, T, Dh)."""
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":
            scores = q[..., 0].numel() * k.shape[2]  # B H T S of them; in steps they are all kept
            if q.shape[2] == 1 or scores < 1 << 23:
                return self.attend_in_steps(q, k, v, mask)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

    def attend_in_steps(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The same, each step written out: in bfloat16, CPUs are faster at it than at one kernel.

        The H / K heads of a group are taken as more queries of the key head that they share: each
        key is then read once for all of them.
        """
        queries = q.shape[2]
        q = (q * self.head_dim**-0.5).reshape(len(q), k.shape[1], -1, self.head_dim)
        # (B, K, H / K * T, S). For a single token k q^T: its few scores are turned, not all keys.
        scores = (k @ q.mT).mT.contiguous() if queries == 1 else q @ k.mT
        scores = scores.unflatten(2, (-1, queries))  # (B, K, H / K, T, S)
        if mask is not None:
            scores = scores + mask.unsqueeze(-3)
        y = scores.softmax(-1).flatten(2, 3) @ v  # (B, K, H / K * T, Dh)
        return y.unflatten(2, (-1, queries)).flatten(1, 2)


class MLP(nn.Module):
    """SwiGLU: one projection gates the other."""

    activation = staticmethod(F.silu)

    def __init__(self, config: Config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1 and x.device.type == "cpu":
            # Decoding, one token a row: the same products with the rows as columns, W x for x W^T.
            # CPUs do that faster for so few. (Hooks on the three matrices do not run then.)
            x = x[:, 0].T  # (D, B)
            y = self.activation(self.gate_proj.weight @ x) * (self.up_proj.weight @ x)
            return (self.down_proj.weight @ y).T.contiguous()[:, None]
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer. Its output is the residual stream that minaxis reads and edits."""

    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rope, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))  # (B, T, D)


class Decoder(nn.Module):
    """Token ids to the final, normalised residual stream: everything but the output matrix."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, ids: Tensor, cache: KVCache | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """As `Transformer`, but returns hidden states (B, T, D)."""
        start = cache.length if cache else 0
        end = start + ids.shape[1]
        limit = self.config.max_position_embeddings
        if cache and cache.max_length < limit:
            limit = cache.max_length
        if end > limit:
            raise ValueError(
                f"{end} tokens do not fit: the context holds {limit}. Shorten the prompt"
                + (" or allocate a larger KVCache." if cache else ".")
            )
        positions = torch.arange(start, end, device=ids.device)[None]  # (1, T)
        if padding is not None:  # the first real token of every row is at position 0
            positions = (positions - padding[:, None]).clamp(min=0)  # (B, T)
        dtype = self.embed_tokens.weight.dtype
        rope = [r.to(dtype) for r in rotary(positions, self.config)]
        mask = attention_mask(ids.shape[1], end, padding, dtype, ids.device)
        x = self.embed_tokens(ids)  # (B, T, D)
        for block in self.layers:
            x = block(x, rope, mask, cache)
        if cache is not None:
            cache.length = end
        return self.norm(x)


class Transformer(nn.Module):
    """A decoder and its output matrix.

    `model(ids, cache, padding)` takes ids (B, T) and returns logits (B, T, V). It holds no state
    between calls; with a `KVCache` the ids continue what the cache holds. `padding` (B,) counts
    the tokens at the left of each row that are only there to fill it; None means none. `last`
    asks for the logits of that many columns at the right; None for all of them.
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
        """Random weights, as before any training: matrices normal with std 0.02, norms one,
        biases zero."""
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
        """Of the weights, and of the residual stream."""
        return self.model.embed_tokens.weight.dtype

    def new_cache(self, batch: int, max_length: int) -> KVCache:
        """An empty cache for `batch` sequences of at most `max_length` tokens."""
        return KVCache(self.config, batch, max_length, self.device, self.dtype)

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        padding: Tensor | None = None,
        last: int | None = None,
    ) -> Tensor:
        hidden = self.model(ids, cache, padding)  # (B, T, D)
        return self.lm_head(hidden if last is None else hidden[:, -last:])
