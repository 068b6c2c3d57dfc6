"""The two controls of the results: random axes, and random weights.

A random axis shows what any direction of this length does. Random weights show how much of the
axis's geometry comes from the words alone.
"""

from dataclasses import replace

import torch

from minaxis.axis import Axis, fit_axis
from minaxis.model import Transformer
from minaxis.rollouts import replay
from minaxis.support.rollout_store import Rollouts
from minaxis.tokenizer import AnyTokenizer


def random_axis(axis: Axis, rollouts: Rollouts, seed: int) -> Axis:
    """An axis of random directions, as long as this one at each layer.

    It is calibrated on the same responses, so that a cap along it has a floor of its own.

    Args:
        rollouts: the rollouts that the axis was fitted on.
    """
    vectors = torch.randn(axis.vectors.shape, generator=torch.Generator().manual_seed(seed))
    vectors *= axis.vectors.norm(dim=-1, keepdim=True) / vectors.norm(dim=-1, keepdim=True)
    random = replace(axis, vectors=vectors)
    means = (rollouts[role]["mean"] for role in rollouts)  # each (N, L, D)
    projections = torch.cat([(mean * random.unit()).sum(-1) for mean in means])  # (N, L)
    return replace(random, projections=projections[~projections.isnan().any(-1)])


def random_weights_axis(
    model: Transformer,
    tokenizer: AnyTokenizer,
    rollouts: Rollouts,
    seed: int,
    *,
    position: str = "mean",
) -> Axis:
    """The axis of a copy of the model with random weights, which reads the same responses.

    Args:
        position: as for `fit_axis`.
    """
    random = type(model)(model.config).initialise(torch.Generator().manual_seed(seed))
    random = random.to(model.lm_head.weight).eval()
    return fit_axis(replay(random, tokenizer, rollouts), position=position)
