"""The controls of the results: random axes that push as hard, and random weights.

A cap along a random axis shows what any push of this strength does. Random weights show how much of
the axis's geometry comes from the words alone.

The *push* of a cap at a layer is the mean over tokens of max(tau - <h, v>, 0): by how much it lifts
a token. A random axis gets the floors at which it pushes as hard as the axis, layer by layer, with
the layers below already capped. Its direction is one of three kinds:

    isotropic     any direction at all
    covariance    a random combination of the centred role vectors: a direction of persona space
    shuffled      the axis of permuted labels: random responses are called the default's

The axis is ranked among the isotropic ones. The last two are hard controls. Most of persona space
lies along the axis, so they often do, too, and a rank among them would say little.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from minaxis.activation_cap import cap_reference
from minaxis.axis import Axis, fit_axis
from minaxis.distributed import ranks
from minaxis.generation import TokenLists
from minaxis.hooks import capture, edit, find_blocks
from minaxis.loading.models import build
from minaxis.loading.transformers_model import adapt
from minaxis.model import Transformer
from minaxis.paper.lab import RANDOM_AXES, Lab
from minaxis.roles import DEFAULT
from minaxis.rollouts import prompt_ids, replay
from minaxis.support.rollout_store import Rollouts
from minaxis.tokenizer import AnyTokenizer

ISOTROPIC, HARD_KINDS = "isotropic", ("covariance", "shuffled")
HARD_EACH = 3  # number of random axes of each hard kind

LOWEST = torch.finfo(torch.float32).min  # the floor of a layer that is not capped

AnyLab = TypeVar("AnyLab", bound=Lab)


def with_random_axes(
    lab: AnyLab,
    rollouts: Rollouts,
    *,
    count: int = RANDOM_AXES,
    hard_each: int = 0,
    texts: int = 64,
) -> AnyLab:
    """The lab with random axes that are as long as its axis, and push as hard, at each layer.

    The isotropic ones come first. Experiments with few random axes have these alone. A cap along a
    random axis has one floor a layer, whatever percentile it is asked for.

    Args:
        rollouts: the rollouts that the axis was fitted on.
        count: number of isotropic axes.
        hard_each: number of axes of each hard kind.
        texts: number of calibration responses, with their prompts, on which the pushes match.
    """
    axis, generator = lab.axis, torch.Generator().manual_seed(lab.seed)
    drawn = {ISOTROPIC: torch.randn(count, *axis.vectors.shape, generator=generator)}
    if hard_each:
        drawn |= hard_directions(axis, rollouts, hard_each, generator)
    reference = calibration_texts(lab.tokenizer, rollouts, Random(lab.seed), texts)
    pushes, random = push_under_cap(lab, axis, reference), []
    first_input = input_of_block(lab.model, min(pushes), reference)
    for kind, directions in drawn.items():
        for vectors in directions:  # (L, D)
            vectors *= axis.vectors.norm(dim=-1, keepdim=True) / vectors.norm(dim=-1, keepdim=True)
            random.append(replace(axis, vectors=vectors, meta=axis.meta | {"kind": kind}))
            floors = matched_floors(lab.model, random[-1], first_input, pushes)
            random[-1].projections = floors[None]  # every percentile of one row is this row
    return replace(lab, random_axes=random)


def hard_directions(
    axis: Axis, rollouts: Rollouts, each: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """`each` random directions of each hard kind: kind -> (each, L, D), of any length."""
    assert axis.role_vectors is not None
    centred = axis.role_vectors - axis.role_vectors.mean(0)  # (R, L, D)
    weights = torch.randn(each, len(centred), generator=generator)
    counts = {role: len(rollouts[role]["responses"]) for role in rollouts}
    total, first = sum(counts.values()), 0
    called_default = torch.stack(
        [torch.randperm(total, generator=generator) < counts[DEFAULT] for _ in range(each)]
    )  # (each, N)
    shuffled = torch.zeros(each, *axis.vectors.shape)
    for role, n in counts.items():  # one role at a time: an open model's means fill the memory
        chosen = called_default[:, first : first + n]
        means = rollouts[role]["mean"].nan_to_num(0, 0, 0)
        signs = torch.where(chosen, 1 / counts[DEFAULT], -1 / (total - counts[DEFAULT]))
        shuffled += torch.einsum("kn,nld->kld", signs, means)
        first += n
    return {
        "covariance": torch.einsum("kr,rld->kld", weights, centred),
        "shuffled": shuffled,
    }


def calibration_texts(
    tokenizer: AnyTokenizer, rollouts: Rollouts, rng: Random, count: int
) -> list[list[int]]:
    """Token ids of random calibration responses with their prompts, at most `count`."""
    texts = [
        prompt_ids(tokenizer, response) + response["ids"]
        for role in rollouts
        for response in rollouts[role]["responses"]
    ]
    return rng.sample(texts, min(count, len(texts)))


@torch.no_grad()
def push_under_cap(lab: Lab, axis: Axis, texts: TokenLists) -> dict[int, float]:
    """By how much the lab's cap along an axis lifts a token of these texts, on average.

    Returns:
        Capped layer -> the mean length of the change there.
    """
    ids, counted = padded(lab.model, texts)
    # A capture that is registered before the cap sees what the cap reads.
    model, layers = lab.model, lab.layers
    with capture(model, layers) as before, lab.capped(axis), capture(model, layers) as after:
        adapt(model)(ids, last=1)
    return {
        layer: (after[layer] - before[layer])[counted].float().norm(dim=-1).mean().item()
        for layer in layers
    }


class BlockInput(NamedTuple):
    """What a block is called with when the model reads a batch of texts."""

    x: Tensor  # (B, T, D)
    others: tuple  # what every block is called with besides: rotation, mask, cache
    counted: Tensor  # (B, T) bool: which tokens count for a push


@torch.no_grad()
def input_of_block(model: Transformer, layer: int, texts: TokenLists) -> BlockInput:
    """What the block of this layer is called with when the model reads these texts."""
    ids, counted = padded(model, texts)
    calls: list[tuple] = []
    handle = find_blocks(model)[layer].register_forward_pre_hook(lambda _, args: calls.append(args))
    try:
        adapt(model)(ids, last=1)
    finally:
        handle.remove()
    ((x, *others),) = calls
    return BlockInput(x, tuple(others), counted)


@torch.no_grad()
def matched_floors(
    model: Transformer, axis: Axis, first_input: BlockInput, pushes: dict[int, float]
) -> Tensor:
    """The floors (L,) at which a cap along the axis pushes the texts' tokens by this much.

    The blocks below the first capped one read the same under every axis. They are not run again.

    Args:
        first_input: of the first capped layer's block.
        pushes: layer -> push. Other layers are not capped; their floor is below everything.
    """
    x, others, counted = first_input
    floors, units = torch.full((len(axis.vectors),), LOWEST), axis.unit().to(x.device)

    def match_and_cap(layer: int) -> Callable[[Tensor], Tensor]:
        def function(h: Tensor) -> Tensor:
            projections = h[counted].float() @ units[layer]
            floors[layer] = floor_for_push(projections, pushes[layer])
            return cap_reference(h, units[layer], floors[layer].item())

        return function

    with edit(model, {layer: match_and_cap(layer) for layer in pushes}):
        for block in find_blocks(model)[min(pushes) : max(pushes) + 1]:
            x = block(x, *others)
    return floors


def floor_for_push(projections: Tensor, push: float) -> float:
    """The floor tau at which a cap lifts tokens with these projections (n,) by `push` on average.

    If k tokens lie below tau, then k tau - (the sum of the k lowest) = n push. For every other k,
    the left side is less. So tau is the least of the solutions for all k.
    """
    sums = projections.double().sort().values.cumsum(0)  # of the k lowest
    k = torch.arange(1, len(sums) + 1, device=sums.device)
    return ((len(sums) * push + sums) / k).min().item()


def padded(model: Transformer, texts: TokenLists) -> tuple[Tensor, Tensor]:
    """Texts as one batch.

    Returns:
        Token ids (B, T), and which of them count for a push (B, T): neither padding nor the first
        token of a text. That one is the same in all texts, and in many models its activation is a
        hundred times as long as any other.
    """
    longest, device = max(map(len, texts)), adapt(model).device
    # Padding at the right needs no mask: no token looks ahead.
    ids = torch.tensor([[*t, *[0] * (longest - len(t))] for t in texts], device=device)
    at, lengths = torch.arange(longest), torch.tensor([len(t) for t in texts])
    return ids, ((at > 0) & (at < lengths[:, None])).to(device)


def random_weights_axis(
    model: Transformer,
    tokenizer: AnyTokenizer,
    rollouts: Rollouts,
    seed: int,
    adopted: Mapping[str, Tensor] | None = None,
) -> Axis:
    """The axis of a copy of the model with random weights, which reads the same responses.

    Args:
        adopted: as for `fit_axis`: which responses to use.
    """
    again = ranks.broadcast(read_by_random_weights(model, tokenizer, rollouts, seed))
    return fit_axis(again, adopted)


def read_by_random_weights(
    model: Transformer, tokenizer: AnyTokenizer, rollouts: Rollouts, seed: int
) -> Rollouts:
    """The same responses, read by a copy of the model with random weights."""
    share = getattr(model, "share", None)  # what this rank has, if ranks share the model
    config = share.whole if share else model.config
    random = type(model)(config).initialise(torch.Generator().manual_seed(seed))
    random = build(
        config, random.named_parameters(), "random weights",
        dtype=model.dtype, device=model.device, copy=False, share=share,
    )  # fmt: skip
    return replay(random, tokenizer, rollouts)
