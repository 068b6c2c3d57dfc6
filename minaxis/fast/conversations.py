"""Conversations: what an earlier turn has read is not read again.

    turn 1   user 1                                   reads user 1
    turn 2   user 1, reply 1, user 2                  reads reply 1, user 2
    turn 3   user 1, reply 1, user 2, reply 2, user 3 reads reply 2, user 3

Each prompt of a conversation begins with the prompt before it. `remembering` keeps the keys and
values of the prompts, and copies them to the rows that go on from there. A question that branches
off an earlier turn uses what was read up to that turn.

Keys and values depend on the interventions under which they were computed. So all that is generated
within one `remembering` must be under the same interventions.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minaxis.fast.prefix import prefill_prefixes
from minaxis.generation import KVCache
from minaxis.model import Cache, Transformer

Prompt = tuple[int, ...]


class Row(NamedTuple):
    """Where a prompt's keys and values are."""

    tensors: list[Tensor]  # those of a batch, (B, K, S, Dh): the keys of each layer, then values
    row: int
    padding: int  # columns before the prompt


class Memory:
    """Reads batches of prompts as `generation.prepare` does, and remembers them."""

    def __init__(self) -> None:
        self.rows: dict[Prompt, Row] = {}
        self.order: list[Prompt] = []  # sorted: the prompts that begin alike are neighbours

    def __call__(
        self, model: Transformer, prompts: Sequence[Sequence[int]], room: int, least: int = 1
    ) -> tuple[Tensor, Cache, Tensor | None]:
        """As `generation.prepare`: the ids left to read, a cache with the rest, the padding."""
        new = [tuple(prompt) for prompt in prompts]
        old = [self.nearest(prompt) for prompt in new]
        shared = [common_length(*pair) for pair in zip(new, old, strict=True)]
        lengths = [len(prompt) for prompt in new]
        longest = max(lengths)
        # All rows read the same number of tokens, so there is no padding before them.
        suffix = max(least, *(length - n for length, n in zip(lengths, shared, strict=True)))
        if suffix > min(min(lengths), 0.75 * longest):  # too little is saved
            ids, cache, padding = prefill_prefixes(model, prompts, room, least)
        else:
            cache = KVCache(model.config, len(new), longest + room, model.device, model.dtype)
            for row, prompt in enumerate(new):
                begin, count = longest - len(prompt), len(prompt) - suffix
                tensors, source, first = self.rows[old[row]]
                for to, kept in zip(cache.keys + cache.values, tensors, strict=True):
                    to[row, :, begin : begin + count] = kept[source, :, first : first + count]
            cache.length = longest - suffix
            ids = torch.tensor([prompt[-suffix:] for prompt in new], device=model.device)
            padding = torch.tensor([longest - n for n in lengths], device=model.device)
        assert isinstance(cache, KVCache)
        self.remember(cache, new, old, shared)
        return ids, cache, padding

    def nearest(self, prompt: Prompt) -> Prompt:
        """The remembered prompt that shares the most tokens with this one; () if there is none."""
        place = bisect(self.order, prompt)
        neighbours = self.order[max(place - 1, 0) : place + 1]
        return max(neighbours, key=lambda other: common_length(prompt, other), default=())

    def remember(
        self, cache: KVCache, new: list[Prompt], old: list[Prompt], shared: list[int]
    ) -> None:
        """Remember the rows of a cache, which the next pass fills. A branch is not remembered."""
        tensors, longest = cache.keys + cache.values, max(map(len, new))
        for row, (prompt, before, n) in enumerate(zip(new, old, shared, strict=True)):
            if n == len(before):  # it goes on from there
                self.rows.pop(before, None)
            elif n > len(prompt) / 2:  # a branch
                continue
            self.rows[prompt] = Row(tensors, row, longest - len(prompt))
        self.order = sorted(self.rows)


def common_length(a: Prompt, b: Prompt) -> int:
    """The number of tokens with which both begin, but not all of `a`: its last one must be read."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a[:-1], b, strict=False)))


@contextmanager
def remembering(model: nn.Module) -> Iterator[None]:
    """Within it, a prompt that continues an earlier one reads only what is new.

    A model without the fast twins (`load(..., fast=False)`, or one of transformers) reads all.
    """
    before = getattr(model, "fast_prepare", None)
    if before is None or isinstance(before, Memory):
        yield
        return
    setattr(model, "fast_prepare", Memory())  # noqa: B010 (a type checker expects a module)
    try:
        yield
    finally:
        setattr(model, "fast_prepare", before)  # noqa: B010
