"""All experiments that apply to an open model.

The comparison with the base model is left out, because it needs the weights of the base model. So
are held-out roles.
"""

from collections.abc import Callable

import torch

from minaxis.axis import Axis
from minaxis.chat import encode_chat
from minaxis.model import Transformer
from minaxis.paper.claims import Experiment
from minaxis.paper.controls import matched_random_axes, random_weights_axis
from minaxis.paper.open_capability import measure_open_capability
from minaxis.paper.open_drift import measure_open_drift
from minaxis.paper.open_lab import JudgedRolePlay, OpenLab, chat
from minaxis.paper.open_secrets import measure_secrets
from minaxis.paper.open_steering import measure_open_steering
from minaxis.paper.space import measure_persona_space
from minaxis.roles import DEFAULT
from minaxis.support.rollout_store import Rollouts
from minaxis.support.stats import mean_with_error
from minaxis.tokenizer import AnyTokenizer

ROLES = 16  # number of roles that are requested
ORDINARY_REPLIES = 16  # number of the default's replies for the cap fire rates


def run_experiments(
    model: Transformer,
    tokenizer: AnyTokenizer,
    axis: Axis,
    rollouts: Rollouts,
    *,
    seed: int = 0,
    watch: Callable[[str], None] = print,
) -> list[Experiment]:
    """Run every experiment that applies to an open model.

    Args:
        axis, rollouts: what `fit_axis.py` wrote for the model.
        watch: called with the name of each experiment as it begins.
    """
    watch("fitting the axis of random weights")
    random_weights = random_weights_axis(model, tokenizer, rollouts, seed)
    lab = OpenLab(
        model=model, tokenizer=tokenizer, axis=axis, seed=seed,
        random_axes=matched_random_axes(model, tokenizer, axis, rollouts, seed=seed),
        role_play=JudgedRolePlay(model, tokenizer, rollouts, ROLES),
    )  # fmt: skip
    adoption_rate = mean_with_error(torch.tensor(list(axis.adoption.values()))).estimate
    results: list[Experiment] = []
    results.append(measure_persona_space(axis, random_weights, adoption_rate=adoption_rate))
    watch("2 steering")
    results.append(measure_open_steering(lab))
    watch("3 secrets that personas leak")
    results.append(measure_secrets(lab))
    watch("4 drift in long conversations")
    results.append(measure_open_drift(lab))
    watch("5 and 7 capability and costs")
    ordinary = rollouts[DEFAULT]["responses"][:ORDINARY_REPLIES]
    prompts = [encode_chat(tokenizer, chat(r["question"], r["system"])) for r in ordinary]
    results.append(measure_open_capability(lab, prompts, [r["ids"] for r in ordinary]))
    return results
