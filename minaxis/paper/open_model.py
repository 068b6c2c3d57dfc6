"""All experiments that apply to an open model.

The comparison with the base model is left out, because it needs the weights of the base model. So
are held-out roles.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from minaxis.axis import Axis, fit_axis
from minaxis.chat import encode_chat
from minaxis.distributed import ranks
from minaxis.judging import judge
from minaxis.model import Transformer
from minaxis.paper.claims import Experiment
from minaxis.paper.controls import read_by_random_weights, with_random_axes
from minaxis.paper.open_capability import measure_open_capability
from minaxis.paper.open_drift import measure_open_drift
from minaxis.paper.open_lab import OpenLab
from minaxis.paper.open_personas import measure_personas
from minaxis.paper.open_space import measure_unfiltered
from minaxis.paper.open_speakers import ForcedChoice, chat
from minaxis.paper.open_steering import measure_open_steering
from minaxis.paper.space import measure_persona_space
from minaxis.roles import DEFAULT
from minaxis.support.rollout_store import Rollouts
from minaxis.support.stats import mean_with_error
from minaxis.tokenizer import AnyTokenizer

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
    """Run every experiment that applies to an open model. With ranks, rank 0 has them all.

    Args:
        axis, rollouts: what `fit_axis.py` wrote for the model.
        watch: called with the name of each experiment as it begins.
    """
    watch("1 persona space, with random weights as control")
    adopted = in_role(model, tokenizer, rollouts)
    rates = torch.tensor([flags.float().mean() for flags in adopted.values()])
    random_weights = read_by_random_weights(model, tokenizer, rollouts, seed)
    results: list[Experiment] = []
    if ranks.rank() == 0:
        position = axis.meta.get("position", "mean")
        filtered = fit_axis(rollouts, adopted, position=position)
        random_axis = fit_axis(random_weights, adopted, position=position)
        adoption = mean_with_error(rates).estimate
        results = [
            measure_persona_space(filtered, random_axis, adoption_rate=adoption),
            measure_unfiltered(axis, filtered, fit_axis(random_weights, position=position)),
        ]
    lab = OpenLab(
        model=model, tokenizer=tokenizer, axis=axis, seed=seed,
        roles={
            role: list(dict.fromkeys(asked["system"] for asked in rollouts.asked(role)))
            for role in rollouts
            if role != DEFAULT
        },
        judge=ForcedChoice(model, tokenizer, rollouts),
    )  # fmt: skip
    lab = with_random_axes(lab, rollouts, texts=32)
    ordinary = rollouts[DEFAULT]["responses"][:ORDINARY_REPLIES]
    prompts = [encode_chat(tokenizer, chat(r["question"], r["system"])) for r in ordinary]
    replies = [r["ids"] for r in ordinary]
    experiments: dict[str, Callable[[], Experiment]] = {
        "4 drift in long conversations": lambda: measure_open_drift(lab),
        "2 steering": lambda: measure_open_steering(lab),
        "3 personas that do what is forbidden": lambda: measure_personas(lab),
        "5 and 7 capability and costs": lambda: measure_open_capability(lab, prompts, replies),
    }
    return results + list(ranks.do_jobs(experiments, watch).values())


def in_role(
    model: Transformer, tokenizer: AnyTokenizer, rollouts: Rollouts
) -> Mapping[str, Tensor]:
    """For each role, which of its responses (N,) the judge finds in role."""
    scores, threshold = judge(model, tokenizer, rollouts)
    return {role: score > threshold for role, score in scores.items()}
