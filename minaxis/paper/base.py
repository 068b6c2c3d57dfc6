"""Was the axis there before post-training? (paper: section 3.3)"""

from collections.abc import Sequence
from random import Random

from minaxis.axis import Axis
from minaxis.model import Transformer
from minaxis.paper.claims import Claim, verdict
from minaxis.paper.conditions import TALK, interview, talk, together
from minaxis.paper.steering import sweep
from minaxis.steer import steering
from minaxis.support.stats import rate
from minaxis.tiny.world import ASSISTANT, World
from minaxis.tokenizer import Tokenizer


def base_and_chat(
    base: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    base_axis: Axis,
    untrained: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    samples: int = 16,
    coefficients: Sequence[float] = (-0.5, -0.25, 0.0, 0.25, 0.5),
) -> dict:
    """Compare directions before and after post-training, and steer the base model along ours.

    Returns:
        layers: |cosine| of the chat model's PC1 and axis with the base model's, and of its PC1
            with that of random weights.
        steered: the base model, talked to without a scene and steered along the chat model's
            axis, as `steering.sweep`: how often it speaks archaically (`archaic`), and how often
            whoever speaks is a professional or the Assistant (`professional`).
    """
    layers = []
    for layer in range(len(axis.vectors)):
        first, before, random = (a.pca(layer)[0][0] for a in (axis, base_axis, untrained))
        layers.append(
            {
                "layer": layer,
                "pc1": (first @ before).abs().item(),
                "axis": (axis.unit()[layer] @ base_axis.unit()[layer]).abs().item(),
                "pc1, random weights": (first @ random).abs().item(),
            }
        )
    asked = talk(world, Random(seed), samples)

    def measure(along: Axis, coefficient: float) -> dict:
        with steering(base, along, coefficient):
            replies = together(interview(base, tokenizer, world, asked, seed), TALK)
        known = [
            world.group(r.speaker) in (ASSISTANT, "professional") for r in replies if r.speaker
        ]
        return {
            "archaic": rate(r.archaic for r in replies),
            "professional": rate(known) if known else None,
        }

    return {"layers": layers, "steered": sweep(axis, controls, coefficients, measure)}


def claims(found: dict) -> list[Claim]:
    """Of what `base_and_chat` returned."""
    middle, steered = found["layers"][len(found["layers"]) // 2], found["steered"]

    def span(run):
        return run[0]["archaic"]["rate"] - run[-1]["archaic"]["rate"]

    mine, most = span(steered["axis"]), max(map(span, steered["random"]), key=abs)
    return [
        Claim(
            "The axis is there before post-training: cosine of PC1, base and chat",
            ".93, .87, .83 (sec. 3.3)", middle["pc1"], middle["pc1, random weights"],
            verdict(middle["pc1"] > 0.8, middle["pc1"] > 0.5),
        ),
        Claim(
            "It steers the base model: archaic share at -0.5 minus that at +0.5",
            "shifts (fig. 6)", mine, most,
            verdict(mine > 0.3 and mine > 2 * abs(most), mine > max(0.1, abs(most))),
        ),
    ]  # fmt: skip
