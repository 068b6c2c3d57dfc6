"""Batched sampling with a KV cache: one plain loop.

    prefill      one forward pass reads all prompts          (B prompts, T tokens each)
    then, for every new token of the batch:
        sample   one token a row from the last logits
        read     one forward pass reads these tokens         (b rows still speaking, 1 token each)

`decode_steps` is the loop, and yields after every forward pass. `generate` collects the tokens that
it yields; `rollouts.py` also reads activations between the passes.

Every row draws from its own random numbers, the *row noise*. So what a row says depends on the
seed and not on the other rows of its batch (up to the rounding of larger matrix products).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minaxis.loading.transformers_model import HuggingFace, adapt
from minaxis.model import Cache, Config, Transformer
from minaxis.tokenizer import AnyTokenizer

TokenLists = Sequence[Sequence[int]]  # one list of token ids a prompt, or a response


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How responses are sampled."""

    max_new_tokens: int = 64  # a response is cut there
    temperature: float = 0.7  # divides the logits; 0 takes the most likely token
    top_p: float = 0.9  # sample from the most likely tokens that together have this probability
    seed: int = 0  # the same seed gives the same responses

    def __post_init__(self) -> None:
        t = self.temperature  # the logits are divided by it: a tiny one would make them infinite
        checks = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (t == 0 or 1e-6 <= t < torch.inf, "0 or at least 1e-6"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "seed": (-(2**63) <= self.seed < 2**63, "an integer of 64 bits"),
        }
        for name in (name for name, (good, _) in checks.items() if not good):
            raise ValueError(f"{name} must be {checks[name][1]}, got {getattr(self, name)}")


class KVCache:
    """Preallocated keys and values of the tokens read so far.

    `length` is the next column: the cache owns the position, and the model advances it.

    Args:
        config: the config of the model that will use it.
        batch: number of sequences, B.
        max_length: the most tokens that it can hold, padding included.
        device, dtype: those of the model's weights.
    """

    def __init__(
        self, config: Config, batch: int, max_length: int,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):  # fmt: skip
        shape = (batch, config.num_key_value_heads, max_length, config.head_dim)
        layers = range(config.num_hidden_layers)
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

    def select_rows(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        self.keys = [k.index_select(0, rows) for k in self.keys]
        self.values = [v.index_select(0, rows) for v in self.values]


def sample(
    logits: Tensor, noise: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """One token a row from the *nucleus*: the fewest most likely tokens that reach `top_p`.

    Args:
        logits: (B, V).
        noise: (B,) random numbers in [0, 1). The draw is a function of these.
        temperature, top_p: as in `SamplingParams`.

    Returns:
        (B,) token ids, and (B,) their log-probabilities before temperature and nucleus, in nats.
    """
    logits = logits.float()
    tokens = logits.argmax(-1, keepdim=True)  # (B, 1)
    if temperature > 0:
        p, order = (logits / temperature).softmax(-1).sort(-1, descending=True)  # (B, V)
        p = p * (p.cumsum(-1) - p < top_p)  # keep a token if those before it sum to less than top_p
        reached = p.cumsum(-1)
        # The first token whose cumulative share exceeds the noise.
        place = (reached <= noise[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
        tokens = order.gather(-1, place.clamp(max=p.shape[-1] - 1))
    return tokens[:, 0], logits.log_softmax(-1).gather(-1, tokens)[:, 0]


def pad_left(prompts: TokenLists, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    """Token ids (B, T), padded at the left, and each row's padding (B,), or None without any."""
    longest = max(len(p) for p in prompts)
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    padding = torch.tensor([longest - len(p) for p in prompts], device=device)
    return ids, padding if padding.any() else None


def new_cache(model: Transformer | HuggingFace, batch: int, max_length: int) -> Cache:
    """An empty cache for `batch` sequences of at most `max_length` tokens."""
    if isinstance(model, HuggingFace):
        return model.new_cache()
    return KVCache(model.config, batch, max_length, model.device, model.dtype)


def prepare(
    model: Transformer | HuggingFace, prompts: TokenLists, room: int, least: int = 1
) -> tuple[Tensor, Cache, Tensor | None]:
    """What the first pass needs: ids (B, T), a cache with `room` to spare, padding (B,) or None."""
    # Twins may leave less to read, but at least the last `least` tokens of each prompt.
    ids, padding = pad_left(prompts, model.device)
    return ids, new_cache(model, len(prompts), ids.shape[1] + room), padding


class Step(NamedTuple):
    """What one forward pass read and sampled, for the b rows still in the batch."""

    rows: Tensor  # (b,) which prompt each row continues
    is_response: Tensor  # (b,) bool: was the last token read part of a response (not of a prompt)?
    tokens: Tensor  # (b,) what each row sampled; the next pass reads it
    logprobs: Tensor | None  # (b,) of these tokens, in nats; None after the last pass
    alive: Tensor  # (b,) bool: is the sampled token part of the response, or has the row ended?


@torch.inference_mode()
def decode_steps(
    model: nn.Module,
    prompts: TokenLists,
    noise: Tensor,
    stop: Sequence[int],
    sampling: SamplingParams,
) -> Iterator[Step]:
    """Continue one batch of prompts, yielding a `Step` after every forward pass.

    After the last tokens one more pass reads them, so that hooks see every token of a response.

    Args:
        prompts: B lists of token ids.
        noise: (B, max_new_tokens) random numbers in [0, 1), see `row_noise`.
        stop: token ids that end a row.
    """
    lm = adapt(model)
    # minaxis/fast/install.py gives a model quicker twins of these two functions.
    prepare_batch = getattr(lm, "fast_prepare", prepare)
    sample_tokens = getattr(lm, "fast_sample", sample)
    limit = sampling.max_new_tokens
    ids, cache, padding = prepare_batch(lm, prompts, limit)
    noise = noise.to(ids.device)
    ends = torch.tensor(list(stop), device=ids.device, dtype=torch.long)
    rows = torch.arange(len(prompts), device=ids.device)
    is_response = torch.zeros_like(rows, dtype=torch.bool)
    alive = ~is_response
    for step in range(limit):
        logits = lm(ids, cache, padding, last=1)[:, 0]  # (b, V)
        tokens, logprobs = sample_tokens(
            logits, noise[rows, step], sampling.temperature, sampling.top_p
        )
        alive = alive & ~torch.isin(tokens, ends)
        yield Step(rows, is_response, tokens, logprobs, alive)
        if not alive.any():
            return
        if alive.sum() <= 0.75 * len(rows):  # rows that have ended leave, many at a time
            keep = alive.nonzero()[:, 0]
            cache.select_rows(keep)
            rows, tokens, alive = rows[keep], tokens[keep], alive[keep]
            padding = None if padding is None else padding[keep]
        ids, is_response = tokens[:, None], alive
    lm(ids, cache, padding, last=1)
    yield Step(rows, is_response, ids[:, -1], None, torch.zeros_like(alive))


def length_batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of at most `size`, similar lengths together: that needs less padding."""
    if size < 1:
        raise ValueError(f"batch size must be at least 1, got {size}")
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + size] for i in range(0, len(order), size)]


def row_noise(seed: int, rows: int, columns: int) -> Tensor:
    """(rows, columns) uniform random numbers in [0, 1): one row a response, one column a token."""
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


def check_prompts(model: nn.Module, prompts: TokenLists, new: int) -> None:
    """Raise a ValueError for an empty prompt, an unknown id, or no room for `new` tokens."""
    limit, known = adapt(model).config.max_position_embeddings, adapt(model).config.vocab_size
    for i, p in enumerate(prompts):
        if isinstance(p, str) or not isinstance(p, Sequence) or not p:
            raise ValueError(f"prompt {i} must be a list of at least one token id, got {p!r}")
        if min(p) < 0 or max(p) >= known:
            raise ValueError(f"prompt {i}: ids {min(p)} to {max(p)}, but the model has {known}")
        if len(p) + new > limit:
            raise ValueError(
                f"prompt {i} has {len(p)} tokens, and {new} new ones would exceed the context of "
                f"{limit}: shorten it, or ask for fewer tokens"
            )


def generate(
    model: nn.Module,
    tokenizer: AnyTokenizer,
    prompts: TokenLists,
    sampling: SamplingParams = SamplingParams(),
    *,
    batch_size: int = 64,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Continue each prompt until it ends its turn or reaches `sampling.max_new_tokens`.

    Args:
        prompts: lists of token ids (see `chat.encode_chat`).
        on_token: called as `on_token(i, id)` for each new token of prompt i, as it appears.

    Returns:
        The new token ids of each prompt, without the token that ended the turn.

    Raises:
        ValueError: a prompt that is empty, too long or of unknown ids; a batch size below 1.

    Example:
        prompt = encode_chat(tokenizer, [{"role": "user", "content": "What are you?"}])
        (answer,) = generate(model, tokenizer, [prompt], SamplingParams(max_new_tokens=40))
        print(tokenizer.decode(answer))
    """
    check_prompts(model, prompts, sampling.max_new_tokens)
    noise = row_noise(sampling.seed, len(prompts), sampling.max_new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    for batch in length_batches([len(p) for p in prompts], batch_size):
        steps = decode_steps(
            model, [prompts[i] for i in batch], noise[batch], tokenizer.stop, sampling
        )
        for step in islice(steps, sampling.max_new_tokens):  # without the last, which only reads
            rows, tokens = step.rows[step.alive].tolist(), step.tokens[step.alive].tolist()
            for row, token in zip(rows, tokens, strict=True):
                answers[batch[row]].append(token)
                if on_token:
                    on_token(batch[row], token)
    return answers
