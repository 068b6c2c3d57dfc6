"""Batched sampling with a KV cache.

`decode` runs one batch and yields after every forward pass; `generate` drives it and returns the
new tokens, `collect` drives it too and reads activations between the passes.

Every row draws from its own random numbers, so what it says depends on the seed and not on which
other rows share its batch (up to the rounding of matrix products of another size).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minaxis.fast.prefix import begin
from minaxis.loading.transformers_model import adapt
from minaxis.model import Transformer
from minaxis.tokenizer import Tokenizer


def sample(
    logits: Tensor, uniform: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """One token a row, from the nucleus of the distribution.

    The nucleus is the smallest set of most likely tokens whose probabilities sum to `top_p`.

    Args:
        logits: (B, V).
        uniform: (B,) random numbers in [0, 1), one a row: the draw is a function of these.
        temperature: divides the logits; 0 takes the most likely token.

    Returns:
        (B,) token ids, and (B,) their log-probabilities before temperature and nucleus, in nats.
    """
    # Some rows at a time, about 4 MB: what is computed on the way then finds its memory in the
    # cache. New memory for all rows at once costs several times the arithmetic.
    size = max(1, (1 << 20) // logits.shape[-1])
    tokens, logprobs = [], []
    for some, u in zip(logits.split(size), uniform.split(size), strict=True):
        some = some.float()
        chosen = some.argmax(-1) if temperature == 0 else _nucleus(some / temperature, u, top_p)
        tokens.append(chosen)
        logprobs.append(some.gather(-1, chosen[:, None])[:, 0] - some.logsumexp(-1))
    return torch.cat(tokens), torch.cat(logprobs)


def _nucleus(logits: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """(B,) the tokens of the nucleus that `uniform` points at; temperature is in the logits."""
    total = logits.logsumexp(-1, keepdim=True)  # (B, 1)
    # The nucleus is nearly always small: sort the head of the distribution, and all of it only
    # in the rows where the head is not enough.
    head, index = logits.topk(min(256, logits.shape[-1]))
    p = (head - total).exp()  # (B, head), descending
    tokens = _draw(p, index, uniform, top_p)
    wide = (p.sum(-1) < top_p).nonzero()[:, 0]
    if len(wide):
        every, index = logits[wide].sort(-1, descending=True)
        tokens[wide] = _draw((every - total[wide]).exp(), index, uniform[wide], top_p)
    return tokens


def _draw(p: Tensor, index: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """Of probabilities (B, n) in descending order, the nucleus' token that `uniform` points at."""
    before = p.cumsum(-1) - p
    p = p * (before < top_p)
    cumulative = p.cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    choice = (cumulative <= target).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)
    return index.gather(-1, choice)[:, 0]


class Step(NamedTuple):
    """What one forward pass of `decode` read and said, for the b rows still in the batch."""

    rows: Tensor  # (b,) which prompt each row continues
    fed: Tensor  # (b,) bool: was the token just read part of a response? (the prompt is not)
    tokens: Tensor  # (b,) what each row sampled; it is read by the next pass
    logprob: Tensor | None  # (b,) of these, in nats; None after the last pass, which only reads
    alive: Tensor  # (b,) bool: is that a token of the response, or has the row ended?


@torch.inference_mode()
def decode(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    stop: Sequence[int],
    temperature: float = 0.7,
    top_p: float = 0.9,
) -> Iterator[Step]:
    """Continue one batch of prompts, yielding a `Step` after every forward pass.

    After the last tokens one more pass reads them, so that hooks see every token of a response.

    Args:
        prompts: B lists of ids.
        uniforms: (B, N) random numbers in [0, 1); N is the most tokens to add.
        stop: ids that end a row.
    """
    model = adapt(model)
    device = model.device
    limit = uniforms.shape[1]
    ids, cache, padding = begin(model, prompts, limit)
    uniforms = uniforms.to(device)
    stop = torch.tensor(list(stop), device=device, dtype=torch.long)
    rows = torch.arange(len(prompts), device=device)
    fed = torch.zeros_like(rows, dtype=torch.bool)
    alive = ~fed
    for step in range(limit + 1):
        logits = model(ids, cache, padding, last=1)[:, 0]  # (b, V)
        if step == limit:
            yield Step(rows, fed, ids[:, -1], None, torch.zeros_like(fed))
            return
        tokens, logprob = sample(logits, uniforms[rows, step], temperature, top_p)
        alive = alive & ~torch.isin(tokens, stop)
        yield Step(rows, fed, tokens, logprob, alive)
        count = int(alive.sum())
        if count == 0:
            return
        # Rows that have ended leave the batch, but not one by one: moving the cache costs about
        # as much as a pass.
        if count <= 0.75 * len(rows):
            keep = alive.nonzero()[:, 0]
            cache.keep(keep)
            rows, tokens, alive = rows[keep], tokens[keep], alive[keep]
            padding = None if padding is None else padding[keep]
        ids, fed = tokens[:, None], alive


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of at most `size`, similar lengths together: less padding."""
    if size < 1:
        raise ValueError(f"batch size must be at least 1, got {size}")
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + size] for i in range(0, len(order), size)]


def draws(seed: int, rows: int, columns: int) -> Tensor:
    """(rows, columns) uniform random numbers in [0, 1) that depend on the seed alone."""
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


def check_prompts(model: Transformer, prompts: Sequence[Sequence[int]], new: int) -> None:
    """A ValueError if a prompt is empty or leaves no room for `new` tokens."""
    limit = adapt(model).config.max_position_embeddings
    for i, p in enumerate(prompts):
        if not p:
            raise ValueError(f"prompt {i} is empty: it needs at least one token")
        if len(p) + new > limit:
            raise ValueError(
                f"prompt {i} has {len(p)} tokens, and {new} new ones would exceed the context of "
                f"{limit}: shorten it, or ask for fewer tokens"
            )


def generate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int = 0,
    batch_size: int = 64,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Continue each prompt until it ends its turn or reaches `max_new_tokens`.

    Args:
        prompts: lists of token ids (see `chat.encode_chat`).
        temperature: 0 is greedy.
        top_p: keep the most likely tokens that together have this probability.
        seed: the same seed, the same answers.
        on_token: called as `on_token(i, id)` for each new token of prompt i, as it appears.

    Returns:
        The new ids of each prompt, without the token that ended the turn.

    Raises:
        ValueError: an empty prompt, one too long for the context, or settings out of range.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    check_prompts(model, prompts, max_new_tokens)
    if temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"temperature must be at least 0 and top_p in (0, 1], got {temperature} and {top_p}"
        )
    uniforms = draws(seed, len(prompts), max_new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    for batch in batches([len(p) for p in prompts], batch_size):
        steps = decode(
            model, [prompts[i] for i in batch], uniforms[batch], tokenizer.stop, temperature, top_p
        )
        for _, step in zip(range(max_new_tokens), steps, strict=False):
            rows, tokens = step.rows[step.alive].tolist(), step.tokens[step.alive].tolist()
            for row, token in zip(rows, tokens, strict=True):
                answers[batch[row]].append(token)
                if on_token:
                    on_token(batch[row], token)
    return answers
