"""What a push along the axis does, and one along random directions (paper: section 3.2)."""

from collections.abc import Callable, Sequence
from random import Random

from minaxis.axis import Axis
from minaxis.model import Transformer
from minaxis.paper.claims import Claim, verdict
from minaxis.paper.conditions import (
    GROUPS,
    TALK,
    adopted,
    interview,
    role_play,
    talk,
    tasks,
    together,
)
from minaxis.steer import steering
from minaxis.support.stats import rate
from minaxis.tiny.questions import TASKS
from minaxis.tiny.world import ASSISTANT, World
from minaxis.tokenizer import Tokenizer

COEFFICIENTS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)


def sweep(
    axis: Axis,
    controls: Sequence[Axis],
    coefficients: Sequence[float],
    measure: Callable[[Axis, float], dict],
) -> dict:
    """`measure` along the axis and along each random direction, at every coefficient."""
    along = [measure(axis, c) for c in coefficients]

    def aside(control: Axis) -> list[dict]:
        # Pushed by nothing, every direction is the same: that costs no second run.
        return [measure(control, c) if c else at for c, at in zip(coefficients, along, strict=True)]

    return {
        "coefficients": list(coefficients),
        "axis": along,
        "random": [aside(control) for control in controls],
    }


def steering_sweep(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    samples: int = 12,
    coefficients: Sequence[float] = COEFFICIENTS,
) -> dict:
    """Push along the axis, both ways (paper: figures 4 and 6).

    Returns:
        For the axis and for each random direction, at every coefficient: how often the Assistant
        answers where nobody was named (`default style`), in which voice (`archaic`), how often
        rightly (`accuracy`), and how often a character that was asked for does (`role-play`).
    """
    rng = Random(seed)
    asked = tasks(world, rng, samples) | talk(world, rng, samples)
    asked |= role_play(world, rng, max(1, samples // 6))

    def measure(along: Axis, coefficient: float) -> dict:
        with steering(model, along, coefficient):
            readings = interview(model, tokenizer, world, asked, seed)
        unnamed = together(readings, [*TASKS, *TALK])
        return {
            "default style": rate(r.speaker == ASSISTANT for r in unnamed),
            "role-play": rate(adopted(asked, readings, GROUPS)),
            "accuracy": rate(r.right for r in together(readings, TASKS)),
            "archaic": rate(r.archaic for r in unnamed),
        }

    return sweep(axis, controls, coefficients, measure)


def moved(found: dict, measure: str, coefficient: float, sign: int, text: str) -> Claim:
    """That steering moves a rate in the direction of `sign`, and more than at random."""
    at, zero = (found["coefficients"].index(c) for c in (coefficient, 0.0))

    def change(run):
        return run[at][measure]["rate"] - run[zero][measure]["rate"]

    mine = change(found["axis"])
    strongest = max((change(run) for run in found["random"]), key=lambda x: sign * x)
    strong, chance = sign * mine, max(sign * strongest, 0)
    return Claim(
        text, "it does (fig. 4, 6)", mine, strongest,
        verdict(strong > 0.3 and strong > 2 * chance, strong > 0.1 and strong > chance),
    )  # fmt: skip


def claims(found: dict) -> list[Claim]:
    """Of what `steering_sweep` returned."""
    return [
        moved(
            found, "default style", -0.5, -1,
            "Steered away (-0.5), the model leaves the Assistant: change of its style's share",
        ),
        moved(
            found, "archaic", -0.5, 1,
            "Steered away (-0.5), another voice speaks: change of the archaic share",
        ),
        moved(
            found, "role-play", 0.5, -1,
            "Steered toward (+0.5), it resists role-play: change of the share in role",
        ),
    ]  # fmt: skip
