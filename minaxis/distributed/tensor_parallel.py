"""One model on several ranks: each has a part of every matrix, and all have the residual stream.

    by rows      q_proj k_proj v_proj gate_proj up_proj     a rank computes some heads and units,
    by columns   o_proj down_proj                           and what these add to the stream
    by words     embed_tokens lm_head                       it knows some words of the vocabulary

A rank's output of o_proj, down_proj and embed_tokens is one term of a sum. A hook adds the terms
of all ranks (all-reduce). So the residual stream is whole on every rank, and interventions need no
change. A hook on lm_head puts the parts of the logits together (all-gather).

Every number of ranks up to the number of query heads will do: a query head brings the key head
that it reads, so a key head may be on several ranks. The weights are frozen, because the sums over
ranks have no gradients.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from minaxis.generation import sample
from minaxis.loading.olmo2 import NormOverHeads, Olmo2Config
from minaxis.model import Config, Transformer


def tensor_group(size: int) -> dist.ProcessGroup:
    """The group of `size` consecutive ranks to which this rank belongs. Every rank must call it.

    Raises:
        ValueError: torchrun did not start this process, or its ranks do not form such groups.
    """
    if not dist.is_initialized():
        raise ValueError(
            f"tensor parallel over {size} ranks needs as many processes: start the script with "
            f"torchrun --nproc-per-node {size}"
        )
    ranks = dist.get_world_size()
    if ranks % size:
        good = ", ".join(str(n) for n in range(1, ranks + 1) if ranks % n == 0)
        raise ValueError(
            f"tensor parallel over {size} ranks, but torchrun started {ranks}: expected a number "
            f"that divides {ranks} ({good})"
        )
    group: dist.ProcessGroup = dist.new_subgroups(group_size=size)[0]
    return group


def split(count: int, rank: int, ranks: int) -> range:
    """Which of `count` things a rank has. The parts are as equal as possible."""
    return range(count * rank // ranks, count * (rank + 1) // ranks)


def split_heads(config: Config, rank: int, ranks: int) -> tuple[list[int], list[int]]:
    """The query heads of a rank, and its key heads, each of which serves equally many of them."""
    queries, keys = config.num_attention_heads, config.num_key_value_heads
    readers = queries // keys  # query heads that read one key head
    if ranks <= keys:
        key_heads = list(split(keys, rank, ranks))
        return [k * readers + i for k in key_heads for i in range(readers)], key_heads
    heads = list(split(queries, rank, ranks))
    key_heads = [head // readers for head in heads]
    return heads, key_heads[:1] if key_heads[0] == key_heads[-1] else key_heads


def config_of_rank(config: Config, rank: int, ranks: int) -> Config:
    """The numbers of a rank's part of a model. The last rank may have fewer words than rows."""
    heads, key_heads = split_heads(config, rank, ranks)
    words = -(-config.vocab_size // ranks)
    return replace(
        config,
        num_attention_heads=len(heads),
        num_key_value_heads=len(key_heads),
        intermediate_size=len(split(config.intermediate_size, rank, ranks)),
        vocab_size=words + 1,  # the last row is zero, and stands for all words of other ranks
    )


class Share:
    """What one rank has of a model.

    Args:
        config: of the whole model.
        group: the ranks that share it.

    Raises:
        ValueError: more ranks than query heads.
    """

    def __init__(self, config: Config, group: dist.ProcessGroup) -> None:
        self.whole, self.group, most = config, group, config.num_attention_heads
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        if self.ranks > most:
            raise ValueError(
                f"tensor parallel over {self.ranks} ranks, but {config.name} has {most} query "
                f"heads: expected at most {most} ranks"
            )
        self.config = config_of_rank(config, self.rank, self.ranks)
        self.words = self.config.vocab_size - 1
        heads, key_heads = split_heads(config, self.rank, self.ranks)
        units = split(config.intermediate_size, self.rank, self.ranks)
        width = config.head_dim
        q = [slice(h * width, (h + 1) * width) for h in heads]
        k = [slice(h * width, (h + 1) * width) for h in key_heads]
        mlp = [slice(units.start, units.stop)]
        words = [slice(self.rank * self.words, (self.rank + 1) * self.words)]
        # The dimension along which each matrix is cut, and this rank's slices of it.
        self.slices: dict[str, tuple[int, list[slice]]] = {
            "q_proj": (0, q), "k_proj": (0, k), "v_proj": (0, k), "o_proj": (1, q),
            "gate_proj": (0, mlp), "up_proj": (0, mlp), "down_proj": (1, mlp),
            "embed_tokens": (0, words), "lm_head": (0, words),
        }  # fmt: skip
        if isinstance(config, Olmo2Config):  # its norms have other weights for each head
            self.slices |= {"q_norm": (0, q), "k_norm": (0, k)}

    def part(self, name: str, tensor: Tensor) -> Tensor:
        """A copy of this rank's part of a parameter. Nothing else is read if it is mapped."""
        module, kind = name.split(".")[-2:]
        if module not in self.slices:
            return tensor.clone()
        dim, slices = self.slices[module]
        if dim == 1 and kind == "bias":  # the sum over ranks must have it once
            return tensor.clone() if self.rank == 0 else torch.zeros_like(tensor)
        parts = [tensor[s] if dim == 0 else tensor[:, s] for s in slices]
        if module in ("embed_tokens", "lm_head"):
            parts.append(tensor.new_zeros(self.words + 1 - len(parts[0]), tensor.shape[1]))
        return torch.cat(parts, dim)

    def connect(self, model: Transformer) -> None:
        """Register what the ranks exchange on a model of `self.config`, and freeze the model."""

        def add_up(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            dist.all_reduce(output, group=self.group)
            return output

        def own_words(module: nn.Module, args: tuple[Tensor]) -> Tensor:
            (ids,) = args
            return torch.where(ids // self.words == self.rank, ids % self.words, self.words)

        def join(module: nn.Module, args: Any, logits: Tensor) -> Tensor:
            logits = logits[..., :-1].contiguous()
            parts = [torch.empty_like(logits) for _ in range(self.ranks)]
            dist.all_gather(parts, logits, group=self.group)
            return torch.cat(parts, -1)[..., : self.whole.vocab_size]  # (B, T, V)

        model.requires_grad_(False)
        model.model.embed_tokens.register_forward_pre_hook(own_words)
        model.lm_head.register_forward_hook(join)
        for name, module in model.named_modules():
            if name.endswith(("embed_tokens", "o_proj", "down_proj")):
                module.register_forward_hook(add_up)
        if isinstance(self.whole, Olmo2Config):
            self.connect_norms(model)
        # What asks the model for its numbers must not see that its vocabulary is cut.
        model.config = replace(self.config, vocab_size=self.whole.vocab_size)
        setattr(model, "share", self)  # noqa: B010 (a type checker expects a module)

    def sample_on_first_rank(self, model: Transformer) -> None:
        """Let all ranks continue with the tokens that the first one sampled.

        All have the same logits, but a GPU may round the sums of the sampler differently.
        """
        sample_here = getattr(model, "fast_sample", sample)
        first = dist.get_global_rank(self.group, 0)

        def sample_there(*args: Any) -> tuple[Tensor, Tensor]:
            tokens, logprobs = sample_here(*args)
            dist.broadcast(tokens, first, group=self.group)
            return tokens, logprobs

        setattr(model, "fast_sample", sample_there)  # noqa: B010

    def connect_norms(self, model: Transformer) -> None:
        """Let OLMo 2's norms over all heads know the heads of the other ranks."""
        for i, name in enumerate(("q_norm", "k_norm")):
            on_ranks = [split_heads(self.whole, rank, self.ranks)[i] for rank in range(self.ranks)]
            copies = Counter(head for heads in on_ranks for head in heads)
            # The mean of squares counts a head once, wherever it is.
            shares = [
                1 / (copies[h] * len(copies) * self.whole.head_dim) for h in on_ranks[self.rank]
            ]
            for block in model.model.layers:
                norm = NormOverRanks(len(shares) * self.whole.head_dim, self.whole.rms_norm_eps)
                norm.group = self.group
                norm.register_buffer(
                    "shares", torch.tensor(shares)[:, None, None], persistent=False
                )
                setattr(block.self_attn, name, norm)


class NormOverRanks(NormOverHeads):
    """`NormOverHeads` over the heads of all ranks."""

    group: dist.ProcessGroup
    shares: Tensor  # (heads, 1, 1): one over the numbers in all heads, and over the head's copies

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()  # (B, heads, T, Dh)
        mean = (h.square() * self.shares).sum((1, 3), keepdim=True)  # (B, 1, T, 1)
        dist.all_reduce(mean, group=self.group)
        h = h * torch.rsqrt(mean + self.eps)
        return self.weight.view(-1, 1, x.shape[-1]) * h.to(x.dtype)
