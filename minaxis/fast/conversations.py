"""Conversations: what an earlier turn has read or said is not read again.

    turn 1   user 1                                   reads user 1
    turn 2   user 1, reply 1, user 2                  reads user 2
    turn 3   user 1, reply 1, user 2, reply 2, user 3 reads user 3

Each prompt of a conversation begins with the prompt before it and the reply to it. `remembering`
keeps the keys and values of both, and copies them to the rows that go on from there. A question
that branches off an earlier turn uses what was read up to that turn. What counts are the token ids:
where a template rewrites a turn, or a reply has other ids when its text is encoded, the rest is
read again.

Keys and values depend on the interventions under which they were computed. So all that is generated
with one `Memory` must be under the same interventions.

`python benchmarks/conversations.py` prints what this saves.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minaxis.fast.prefix import prefill_prefixes
from minaxis.generation import KVCache, sample
from minaxis.model import Cache, Transformer

Ids = tuple[int, ...]
ENDING = 8  # tokens at a prompt's end that a template may write differently in the next prompt


class Row(NamedTuple):
    """Where the keys and values of a text are."""

    tensors: list[Tensor]  # those of a batch, (B, K, S, Dh): the keys of each layer, then values
    row: int
    padding: int  # columns before the text
    prompt: int  # number of tokens that were not sampled


class RecordedCache(KVCache):
    """A cache that knows what its rows read, and gives rows that leave it to a memory.

    Args:
        cache: an ordinary cache, whose tensors this one takes.
        prompts: what its rows are about to read.
    """

    def __init__(self, cache: Cache, prompts: list[Ids], memory: "Memory"):
        vars(self).update(vars(cache))
        self.memory, longest = memory, max(map(len, prompts))
        self.texts = [list(prompt) for prompt in prompts]  # the prompt, then what was sampled
        self.prompts = [len(prompt) for prompt in prompts]
        self.padding = [longest - length for length in self.prompts]

    def select_rows(self, rows: Tensor) -> None:
        kept = rows.tolist()
        gone = sorted({*range(len(self.texts))} - {*kept})
        index = torch.tensor(gone, dtype=torch.long, device=rows.device)
        tensors = [x[:, :, : self.length].index_select(0, index) for x in self.keys + self.values]
        self.remember(tensors, gone)
        super().select_rows(rows)
        self.texts = [self.texts[row] for row in kept]
        self.prompts = [self.prompts[row] for row in kept]
        self.padding = [self.padding[row] for row in kept]

    def remember(self, tensors: list[Tensor], rows: Sequence[int]) -> None:
        """Give these rows to the memory. The tensors hold them in the same order."""
        for place, row in enumerate(rows):
            read = tuple(self.texts[row][: max(self.length - self.padding[row], 0)])
            self.memory.rows[read] = Row(tensors, place, self.padding[row], self.prompts[row])


class Memory:
    """Reads batches of prompts as `generation.prepare` does, and remembers them and the replies."""

    def __init__(self) -> None:
        self.rows: dict[Ids, Row] = {}
        self.order: list[Ids] = []  # sorted: the texts that begin alike are neighbours
        self.cache: RecordedCache | None = None  # of the latest batch
        self.sampler = sample

    def __call__(
        self, model: Transformer, prompts: Sequence[Sequence[int]], room: int, least: int = 1
    ) -> tuple[Tensor, Cache, Tensor | None]:
        """As `generation.prepare`: the ids left to read, a cache with the rest, the padding."""
        self.remember_batch()
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
                kept = self.rows[old[row]]
                columns = slice(kept.padding, kept.padding + count)
                for to, tensor in zip(cache.keys + cache.values, kept.tensors, strict=True):
                    to[row, :, begin : begin + count] = tensor[kept.row, :, columns]
            cache.length = longest - suffix
            ids = torch.tensor([prompt[-suffix:] for prompt in new], device=model.device)
            padding = torch.tensor([longest - n for n in lengths], device=model.device)
        recorded = RecordedCache(cache, new, self)
        branches = 0
        for prompt, before, n in zip(new, old, shared, strict=True):
            text = self.rows.get(before)
            if text and goes_on(prompt, n, text.prompt):
                del self.rows[before]
            elif n > len(prompt) / 2:
                branches += 1
        # Branches off conversations that are remembered are not remembered.
        self.cache = None if branches > len(new) / 2 else recorded
        return ids, recorded, padding

    def sample(
        self, logits: Tensor, noise: Tensor, temperature: float, top_p: float
    ) -> tuple[Tensor, Tensor]:
        """As `generation.sample`."""
        tokens, logprobs = self.sampler(logits, noise, temperature, top_p)
        if self.cache:
            for text, token in zip(self.cache.texts, tokens.tolist(), strict=True):
                text.append(token)
        return tokens, logprobs

    def remember_batch(self) -> None:
        """Remember the rows that are left in the latest batch."""
        if self.cache:
            tensors = self.cache.keys + self.cache.values
            self.cache.remember(tensors, range(len(self.cache.texts)))
            self.cache = None
        self.rows.pop((), None)
        self.order = sorted(self.rows)

    def nearest(self, prompt: Ids) -> Ids:
        """The remembered text that shares the most tokens with a prompt; () if there is none."""
        place = bisect(self.order, prompt)
        neighbours = self.order[max(place - 1, 0) : place + 1]
        return max(neighbours, key=lambda other: common_length(prompt, other), default=())


def goes_on(prompt: Ids, shared: int, before: int) -> bool:
    """Does a prompt that shares so many tokens with a text go on from it?

    Args:
        before: the length of the text's prompt.
    """
    longer = len(prompt) > before + ENDING
    return shared >= before or (longer and shared + ENDING >= before)


def common_length(a: Ids, b: Ids) -> int:
    """The number of tokens with which both begin, but not all of `a`: its last one must be read."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a[:-1], b, strict=False)))


@contextmanager
def remembering(model: nn.Module, memory: Memory | None = None) -> Iterator[None]:
    """Within it, a prompt that continues an earlier one reads only what is new.

    A model without the fast twins (`load(..., fast=False)`, or one of transformers) reads all.

    Args:
        memory: of earlier turns under the same interventions. The default is a new one, or that of
            the `with` around this one.
    """
    before: list[Any] = [getattr(model, name, None) for name in ("fast_prepare", "fast_sample")]
    if None in before or (memory is None and isinstance(before[0], Memory)):
        yield
        return
    memory = memory or Memory()
    memory.sampler = before[1]
    setattr(model, "fast_prepare", memory)  # noqa: B010 (a type checker expects a module)
    setattr(model, "fast_sample", memory.sample)  # noqa: B010
    try:
        yield
    finally:
        memory.remember_batch()  # without a batch, which knows its memory, both are freed at once
        setattr(model, "fast_prepare", before[0])  # noqa: B010
        setattr(model, "fast_sample", before[1])  # noqa: B010
