"""Prompts that begin alike: what they share is read once.

All questions to a role follow the same system prompt. The keys and values of a token depend on
the tokens before it and on nothing else, so a shared beginning, a *stem*, needs one pass. They
are then copied to every row that begins with it, and each row reads only the rest:

    prompts   A A A q q q     stems   A A A     rest   q q q
              A A A q q q             B B              q q q
              . B B q q q                              q q q

Every row leaves the same number of tokens for the rest, so there is no padding in between. And
positions count from a row's first token, so what is copied may move to another column.
"""

from collections.abc import Sequence
from itertools import pairwise, takewhile

import torch
from torch import Tensor

from minaxis.model import KVCache, Transformer


def share(prompts: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[int], int]:
    """What to read once.

    Returns:
        stems: the shared beginnings.
        owner: for each prompt the index of its stem.
        rest: the number of tokens that every prompt reads by itself. A prompt shorter than its
            stem and the rest together begins with only a part of the stem.
    """
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    common = [0] * len(prompts)  # tokens shared with a neighbour in that order
    for i, j in pairwise(order):
        pairs = zip(prompts[i], prompts[j], strict=False)
        length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        common[i], common[j] = max(common[i], length), max(common[j], length)
    rest = max(1, *(len(p) - n for p, n in zip(prompts, common, strict=True)))
    stems: list[list[int]] = []
    owner = [0] * len(prompts)
    for i in order:
        head = list(prompts[i][: max(len(prompts[i]) - rest, 0)])
        last = stems[-1] if stems else None
        if last is not None and head[: len(last)] == last[: len(head)]:
            stems[-1] = max(last, head, key=len)  # one begins with the other
        else:
            stems.append(head)
        owner[i] = len(stems) - 1
    return stems, owner, rest


def begin(
    model: Transformer, prompts: Sequence[Sequence[int]], room: int
) -> tuple[Tensor, KVCache, Tensor | None]:
    """Start on a batch of prompts, reading what they share once where that pays.

    Args:
        room: columns that the cache must have beyond the prompts.

    Returns:
        ids: (B, T) what is left to read: whole prompts if sharing would not pay.
        cache: holds what has been read.
        padding: (B,) columns at the left of each row that only fill it, or None if there are none.
    """
    longest, shortest = (f(map(len, prompts)) for f in (max, min))
    cache = model.new_cache(len(prompts), longest + room)
    stems, owner, rest = share(prompts)
    columns = max(map(len, stems))
    cost = len(stems) * columns + len(prompts) * rest
    # The copies cost something too, so a quarter of the tokens must be saved. And transformers'
    # models keep caches of their own kinds.
    if cost > 0.75 * len(prompts) * longest or rest > shortest or not isinstance(cache, KVCache):
        ids, padding = pad_left(prompts, model.device)
        return ids, cache, padding
    # Padding at the right needs no mask: no token looks ahead.
    ids = torch.tensor([s + [0] * (columns - len(s)) for s in stems], device=model.device)
    read = model.new_cache(len(stems), columns)
    model(ids, read, last=1)
    padding = torch.tensor([longest - len(p) for p in prompts], device=model.device)
    cache.begin(read, torch.tensor(owner, device=model.device), padding)
    return torch.tensor([p[-rest:] for p in prompts], device=model.device), cache, padding


def pad_left(prompts: Sequence[Sequence[int]], device) -> tuple[Tensor, Tensor | None]:
    """ids (B, T) and the number of padding tokens at the left of each row (B,), None if none."""
    longest = max(len(p) for p in prompts)
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    padding = torch.tensor([longest - len(p) for p in prompts], device=device)
    return ids, padding if padding.any() else None
