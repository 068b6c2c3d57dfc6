"""Does the axis exist before post-training? (paper: section 3.3)"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, ClassVar

from minaxis.axis import Axis
from minaxis.model import Transformer
from minaxis.paper.claims import Claim, Experiment, verdict
from minaxis.paper.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    control_band,
    from_zero_to_one,
    legend_below,
    load_pyplot,
    with_intervals,
)
from minaxis.paper.steering import ARCHAIC, Rates, Sweep, sweep
from minaxis.support.stats import rate
from minaxis.tiny.lab import TinyLab, joined
from minaxis.tiny.questions import OPEN_TOPICS, open_questions
from minaxis.tiny.reader import Reading
from minaxis.tiny.world import ASSISTANT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COEFFICIENTS = (-0.5, -0.25, 0.0, 0.25, 0.5)
PROFESSIONAL = "a professional or the Assistant speaks"  # share of the replies with a known speaker


@dataclass(frozen=True)
class Cosines:
    """Unsigned cosines of the chat model's directions with other models' directions at a layer."""

    layer: int
    pc1: float  # of PC1 and the base model's PC1
    axis: float  # of the axis and the base model's axis
    pc1_random_weights: float  # of PC1 and the PC1 of random weights


@dataclass(frozen=True)
class BaseAndChat(Experiment):
    """Directions before and after post-training, and the base model steered along the chat axis."""

    name: ClassVar[str] = "base and chat"

    cosines: list[Cosines]  # by layer
    sweep: Sweep  # of the base model, along the chat model's axis; ARCHAIC and PROFESSIONAL

    def claims(self) -> list[Claim]:
        middle = self.cosines[len(self.cosines) // 2]

        def change(run: Sequence[Rates]) -> float:
            return run[0][ARCHAIC].rate - run[-1][ARCHAIC].rate

        along_axis = change(self.sweep.axis)
        strongest = max(map(change, self.sweep.random), key=abs)
        return [
            Claim(
                "PC1 of persona space exists before post-training: cosine of base and chat model",
                ".93, .87, .83 (sec. 3.3)", middle.pc1, middle.pc1_random_weights,
                verdict(middle.pc1 > 0.8, middle.pc1 > 0.5),
            ),
            Claim(
                "The axis steers the base model: share of archaic replies at -0.5 minus that at "
                "+0.5",
                "shifts (fig. 6)", along_axis, strongest,
                verdict(
                    along_axis > 0.3 and along_axis > 2 * abs(strongest),
                    along_axis > max(0.1, abs(strongest)),
                ),
            ),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        """The cosines by layer, and the base model steered along the chat model's axis."""
        figure, (left, right) = load_pyplot().subplots(1, 2, figsize=(9, 4), layout="constrained")
        layers = [at.layer for at in self.cosines]
        for values, colour, label in (
            ([at.pc1 for at in self.cosines], BLUE, "PC1, chat and base model"),
            ([at.axis for at in self.cosines], GREEN, "axis, chat and base model"),
            ([at.pc1_random_weights for at in self.cosines], GREY,
             "PC1, chat model and random weights"),
        ):  # fmt: skip
            left.plot(layers, values, "o-", color=colour, label=label)
        left.set_xticks(layers)
        left.set_xlabel("layer")
        left.set_ylim(0, 1.03)
        left.set_title("Cosine before and after post-training, unsigned")
        legend_below(left, 1)

        x = self.sweep.coefficients
        runs = [[rates[ARCHAIC].rate for rates in run] for run in self.sweep.random]
        control_band(right, x, runs, f"{ARCHAIC}, random directions")
        for measured, colour in ((ARCHAIC, ORANGE), (PROFESSIONAL, BLUE)):
            known = [(c, r[measured]) for c, r in zip(x, self.sweep.axis, strict=True)
                     if measured in r]  # fmt: skip
            heights, errors = with_intervals([r for _, r in known])
            right.errorbar([c for c, _ in known], heights, errors, color=colour, marker="o",
                           markersize=4, label=measured)  # fmt: skip
        right.set_xlabel("coefficient (mean residual norms)")
        right.set_title("The base model, steered along the chat model's axis")
        from_zero_to_one(right, "share of replies")
        legend_below(right, 1)
        return {"base-and-chat": figure}


def measure_base_and_chat(
    lab: TinyLab,
    base: Transformer,
    base_axis: Axis,
    random_weights: Axis,
    *,
    samples: int = 16,
    coefficients: Sequence[float] = COEFFICIENTS,
) -> BaseAndChat:
    """Compare directions, and steer the base model along the axis of the lab's chat model.

    Args:
        base_axis: the axis of the base model.
        random_weights: the axis of a model with random weights that read the chat model's replies.
    """
    base_lab = replace(lab, model=base)
    requests = open_questions(lab.world, Random(lab.seed), samples)

    def ask() -> list[Reading]:
        return joined(base_lab.ask_parts(requests), OPEN_TOPICS)

    def rates(readings: list[Reading]) -> Rates:
        known = [
            lab.world.group(r.speaker) in (ASSISTANT, "professional") for r in readings if r.speaker
        ]
        professional = {PROFESSIONAL: rate(known)} if known else {}
        return {ARCHAIC: rate(r.archaic for r in readings)} | professional

    def cosines(layer: int) -> Cosines:
        chat, before, random = (a.pca(layer)[0][0] for a in (lab.axis, base_axis, random_weights))
        return Cosines(
            layer=layer,
            pc1=(chat @ before).abs().item(),
            axis=(lab.axis.unit()[layer] @ base_axis.unit()[layer]).abs().item(),
            pc1_random_weights=(chat @ random).abs().item(),
        )

    return BaseAndChat(
        cosines=[cosines(layer) for layer in range(len(lab.axis.vectors))],
        sweep=sweep(base_lab, coefficients, ask, rates),
    )
