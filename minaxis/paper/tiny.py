"""All experiments on the tiny world; and the one talk that the demo shows."""

from collections.abc import Callable

import torch

from minaxis.axis import Axis, fit_axis
from minaxis.model import Transformer
from minaxis.paper.base import base_and_chat
from minaxis.paper.capability import capability
from minaxis.paper.conditions import CONTROLS, every_layer, ways
from minaxis.paper.costs import costs
from minaxis.paper.drift import drift
from minaxis.paper.jailbreaks import jailbreaks
from minaxis.paper.space import persona_space
from minaxis.paper.steering import steering_sweep
from minaxis.rollouts import replay
from minaxis.support.rollout_store import Rollouts
from minaxis.tiny.questions import geometry, hold, in_role, play, random_direction, share
from minaxis.tiny.world import ASSISTANT, World
from minaxis.tokenizer import Tokenizer


def tiny_axis(
    model: Transformer, tokenizer: Tokenizer, world: World, seed: int = 0, samples: int = 2
) -> tuple[Axis, Rollouts]:
    """An axis of what the model says now, of replies in role, and the rollouts it came from."""
    rollouts = play(model, tokenizer, world, seed, samples)
    return fit_axis(rollouts, in_role(world, rollouts)), rollouts


def reproduce(
    model: Transformer,
    base: Transformer,
    tokenizer: Tokenizer,
    world: World,
    seed: int = 0,
    scale: float = 1.0,
    watch: Callable[[str], None] = print,
) -> dict:
    """Every experiment on a tiny model and its base.

    Args:
        scale: multiplies the numbers of questions; below 1 for a quick look.
        watch: told the name of each experiment as it begins.
    """

    def number(full: int) -> int:
        return max(2, round(full * scale))

    watch("the axis, of the model, of its base and of random weights")
    axis, rollouts = tiny_axis(model, tokenizer, world, seed)
    base_axis = fit_axis(play(base, tokenizer, world, seed))
    weights = type(model)(model.config).initialise(torch.Generator().manual_seed(seed))
    untrained = fit_axis(replay(weights.to(model.lm_head.weight).eval(), tokenizer, rollouts))
    controls = [random_direction(axis, rollouts, seed + i) for i in range(CONTROLS)]
    some = (model, tokenizer, world, axis, controls, seed)
    found: dict = {}
    watch("1 persona space")
    found["persona space"] = persona_space(axis, untrained) | {
        "correlation with s": [row["correlation_s"] for row in geometry(world, axis)],
        "groups": {r: world.group(r) for r in axis.roles},
        "adoption": share(f for flags in in_role(world, rollouts).values() for f in flags.tolist()),
    }
    watch("2 steering")
    found["steering"] = steering_sweep(*some, number(12))
    watch("3 persona jailbreaks")
    found["jailbreaks"] = jailbreaks(*some, number(48))
    watch("4 drift")
    found["drift"] = drift(*some, number(64))
    watch("5 capability")
    found["capability"] = capability(*some, number(64))
    watch("6 base and chat")
    found["base and chat"] = base_and_chat(
        base, tokenizer, world, axis, base_axis, untrained, controls, seed, number(16)
    )
    watch("7 costs")
    found["costs"] = costs(*some, number(4))
    return found


def replayed(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    seed: int = 0,
    talks: int = 16,
    turns: int = 8,
) -> dict:
    """A talk about what the model is, plain and capped, to be watched turn by turn.

    Returns:
        turns: of the talk that the Assistant begins and then speaks least in, `message`, and for
            `plain` and `capped` the reply's `text`, its `projection` at the last layer, and who
            is `speaking`.
        style: for both the share of all talks in the Assistant's style, by turn.
    """
    layer, held = len(axis.vectors) - 1, {}
    for name, way in ways(model, axis, [], every_layer(axis)).items():
        with way():
            held[name] = hold(model, tokenizer, world, ["selfhood"], seed, talks, turns)
    along = {name: some.along(axis, layer) for name, some in held.items()}
    # How often another than the Assistant speaks, in talks that the Assistant begins.
    first, *later = held["plain"].readings
    others = [
        sum(turn[i].speaker != ASSISTANT for turn in later) if first[i].speaker == ASSISTANT else -1
        for i in range(talks)
    ]
    farthest = others.index(max(others))
    return {
        "layer": layer,
        "turns": [
            {"message": held["plain"].script[turn][farthest]}
            | {
                name: {
                    "text": some.texts[turn][farthest],
                    "projection": along[name][farthest, turn].item(),
                    "speaking": some.readings[turn][farthest].speaker,
                }
                for name, some in held.items()
            }
            for turn in range(turns)
        ],
        "style": {
            name: [share(r.speaker == ASSISTANT for r in turn) for turn in some.readings]
            for name, some in held.items()
        },
        "talks": talks,
    }
