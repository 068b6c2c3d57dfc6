"""The controls of the results: random axes that push as hard, and random weights.

A cap along a random axis shows what any push of this strength does. Random weights show how much of
the axis's geometry comes from the words alone.

The *push* of a cap at a layer is the mean over tokens of max(tau - <h, v>, 0). A random axis gets
the floor at which its push equals that of the axis's own floor, at each layer. Its direction is

    isotropic     any direction at all
    covariance    a random combination of the centred role vectors: a direction of persona space
    shuffled      the axis of permuted labels: a random set of responses is called the default's
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from minaxis.axis import Axis, fit_axis
from minaxis.generation import TokenLists
from minaxis.hooks import capture
from minaxis.loading.transformers_model import adapt
from minaxis.model import Transformer
from minaxis.paper.lab import CAP_PERCENTILE, RANDOM_AXES, Lab
from minaxis.roles import DEFAULT
from minaxis.rollouts import prompt_ids, replay
from minaxis.support.rollout_store import Rollouts
from minaxis.tokenizer import AnyTokenizer

KINDS = ("isotropic", "covariance", "shuffled")
REFERENCE_TEXTS = 384  # number of calibration texts on which the pushes are matched


def matched_random_axes(
    model: Transformer,
    tokenizer: AnyTokenizer,
    axis: Axis,
    rollouts: Rollouts,
    *,
    percentile: float = CAP_PERCENTILE,
    seed: int = 0,
    count: int = RANDOM_AXES,
) -> list[Axis]:
    """Random axes that push as hard as the axis, and are as long, at each layer.

    The kinds take turns, so the first three axes are one of each kind. A cap along such an axis has
    one floor, whatever percentile it is asked for.

    Args:
        model: read without an intervention.
        rollouts: the rollouts that the axis was fitted on. Their texts are the reference.
        percentile: of the axis's own floor.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = random_directions(axis, rollouts, -(-count // len(KINDS)), generator)
    kinds = [KINDS[i % len(KINDS)] for i in range(count)]
    directions = torch.stack([draws[kind][i // len(KINDS)] for i, kind in enumerate(kinds)])
    directions *= axis.vectors.norm(dim=-1, keepdim=True) / directions.norm(dim=-1, keepdim=True)

    texts = reference_texts(tokenizer, rollouts, seed)
    projections = token_projections(model, texts, torch.stack([axis.vectors, *directions]))
    pushes = mean_push(projections[:, 0], axis.thresholds(percentile))  # (L,)
    floors = floors_for_push(projections[:, 1:], pushes)  # (count, L)
    return [
        replace(axis, vectors=v, projections=floor[None], meta=axis.meta | {"kind": kind})
        for v, floor, kind in zip(directions, floors, kinds, strict=True)
    ]


def random_directions(
    axis: Axis, rollouts: Rollouts, each: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """`each` random directions of every kind: kind -> (each, L, D), of any length."""
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
        chosen, means = called_default[:, first : first + n], rollouts[role]["mean"].nan_to_num()
        signs = torch.where(chosen, 1 / counts[DEFAULT], -1 / (total - counts[DEFAULT]))
        shuffled += torch.einsum("kn,nld->kld", signs, means)
        first += n
    return {
        "isotropic": torch.randn(each, *axis.vectors.shape, generator=generator),
        "covariance": torch.einsum("kr,rld->kld", weights, centred),
        "shuffled": shuffled,
    }


def reference_texts(tokenizer: AnyTokenizer, rollouts: Rollouts, seed: int) -> TokenLists:
    """Token ids of calibration responses with their prompts, a random few if there are many."""
    texts = [
        prompt_ids(tokenizer, response) + response["ids"]
        for role in rollouts
        for response in rollouts[role]["responses"]
    ]
    return Random(seed).sample(texts, min(len(texts), REFERENCE_TEXTS))


@torch.no_grad()
def token_projections(
    model: Transformer,
    texts: TokenLists,
    directions: Tensor,
    intervention: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    batch_size: int = 16,
) -> Tensor:
    """Projections of the texts' n tokens on K directions (K, L, D) at length 1: (n, K, L).

    Each layer is read before the intervention changes it, but after the changes below it.

    The first token of each text is left out. It is the same in all of them, and in many models its
    activation is a hundred times as long as any other: it would be most of the push.
    """
    lm = adapt(model)
    units = directions / directions.norm(dim=-1, keepdim=True)
    parts = []
    for i in range(0, len(texts), batch_size):
        batch = texts[i : i + batch_size]
        longest = max(map(len, batch))
        ids = torch.tensor([[*t, *[0] * (longest - len(t))] for t in batch], device=lm.device)
        lengths = torch.tensor([len(t) for t in batch], device=lm.device)
        at = torch.arange(longest, device=lm.device)
        counted = (at > 0) & (at < lengths[:, None])  # (B, T): neither first tokens nor padding
        with capture(model) as seen, intervention():
            lm(ids, last=1)
        by_layer = [
            seen[layer][counted].float() @ units[:, layer].T.to(lm.device) for layer in sorted(seen)
        ]
        parts.append(torch.stack(by_layer, -1).cpu())
    return torch.cat(parts)


def mean_push(projections: Tensor, floors: Tensor) -> Tensor:
    """By how much a cap with these floors (..., L) lifts a token on average: (..., L).

    Args:
        projections: (n, ..., L), of the tokens before the cap.
    """
    return (floors - projections).clamp(min=0).mean(0)


def floors_for_push(projections: Tensor, pushes: Tensor) -> Tensor:
    """The floors (..., L) at which a cap pushes by this much on average.

    If a floor tau lies above the k lowest of n projections, k tau - (their sum) = n * push. For any
    other k, the left side is less. So tau is the least of the solutions for all k.

    Args:
        projections: (n, ..., L), of the tokens before the cap.
        pushes: broadcastable to (..., L).
    """
    lowest = projections.double().sort(0).values.cumsum(0)  # sums of the k lowest
    k = torch.arange(1, len(lowest) + 1).view(-1, *[1] * (lowest.ndim - 1))
    return ((len(lowest) * pushes + lowest) / k).min(0).values.float()


def push_under_cap(lab: Lab, texts: Sequence[list[int]], axis: Axis | None = None) -> list[float]:
    """The mean push, at each capped layer, of the lab's cap on these texts.

    Every layer reads what the caps of the layers below have changed.

    Args:
        texts: token ids.
        axis: capped along instead of the lab's axis.
    """
    axis = axis or lab.axis
    projections = token_projections(
        lab.model, texts, axis.vectors[None], lambda: lab.capped(axis)
    )  # fmt: skip
    pushes = mean_push(projections[:, 0], axis.thresholds(CAP_PERCENTILE))
    return [pushes[layer].item() for layer in lab.layers]


def random_weights_axis(
    model: Transformer,
    tokenizer: AnyTokenizer,
    rollouts: Rollouts,
    seed: int,
    *,
    adopted: Mapping[str, Tensor] | None = None,
    position: str = "mean",
) -> Axis:
    """The axis of a copy of the model with random weights, which reads the same responses.

    Args:
        adopted, position: as for `fit_axis`.
    """
    random = type(model)(model.config).initialise(torch.Generator().manual_seed(seed))
    random = random.to(model.lm_head.weight).eval()
    return fit_axis(replay(random, tokenizer, rollouts), adopted, position=position)
