"""What a cap does to right answers (paper: section 5, figure 10)."""

from collections.abc import Sequence
from random import Random

from minaxis.axis import Axis
from minaxis.model import Transformer
from minaxis.paper.claims import Claim, verdict
from minaxis.paper.conditions import every_layer, interview, tasks, ways
from minaxis.support.stats import paired, rate
from minaxis.tiny.questions import TASKS
from minaxis.tiny.world import World
from minaxis.tokenizer import Tokenizer


def changes(flags: dict[str, dict[str, list[bool]]]) -> dict:
    """From flags of each condition and kind of question, `plain` first:

    Returns:
        plain: the rates. capped, random: by how much they change on the same questions, with
            paired intervals; `random` is a list, one for each direction.
    """
    plain, *others = flags.values()
    moved = [
        {kind: paired(plain[kind], values) for kind, values in found.items()} for found in others
    ]
    return {
        "plain": {kind: rate(values) for kind, values in plain.items()},
        "capped": moved[0],
        "random": moved[1:],
    }


def capability(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    samples: int = 64,
) -> dict:
    """`changes` of accuracy under a cap, by topic and over `all`."""
    asked = tasks(world, Random(seed), samples)
    right = {}
    for name, way in ways(model, axis, controls, every_layer(axis)).items():
        with way():
            readings = interview(model, tokenizer, world, asked, seed)
        right[name] = {topic: [r.right for r in replies] for topic, replies in readings.items()}
        right[name]["all"] = [flag for topic in TASKS for flag in right[name][topic]]
    return changes(right)


def kept(change: dict, random: Sequence[dict], low: float) -> Claim:
    """That accuracy is kept: the change is small, and its interval does not reach below `low`."""
    size = abs(change["difference"])
    return Claim(
        "A cap costs no capability: change of accuracy, same questions",
        "-.01 to +.03 (fig. 10)", change["difference"], min(c["difference"] for c in random),
        verdict(size < 0.03 and change["low"] > low, size < 0.08),
    )  # fmt: skip


def claims(found: dict) -> list[Claim]:
    """Of what `capability` returned."""
    return [kept(found["capped"]["all"], [run["all"] for run in found["random"]], -0.08)]
