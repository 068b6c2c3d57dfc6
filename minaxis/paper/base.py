"""Does the axis exist before post-training? (paper: section 3.3)"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, ClassVar

import torch

from minaxis.axis import Axis
from minaxis.model import Transformer
from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    control_band,
    from_zero_to_one,
    legend_below,
    load_pyplot,
    with_intervals,
)
from minaxis.paper.space import with_roles
from minaxis.paper.steering import ARCHAIC, Rates, Sweep, sweep
from minaxis.support.stats import Estimate, bootstrap, rate
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
    axis_random_weights: float  # of the axis and the axis of random weights


@dataclass(frozen=True)
class Likeness:
    """An unsigned cosine of a direction of the chat model with that of two other models."""

    base: Estimate
    random_weights: Estimate


@dataclass(frozen=True)
class BaseAndChat(Experiment):
    """Directions before and after post-training, and the base model steered along the chat axis."""

    name: ClassVar[str] = "base and chat"

    cosines: list[Cosines]  # by layer
    components: list[Likeness]  # PC1 to PC3 at the middle layer
    axis: Likeness  # of the axis at the middle layer
    sweep: Sweep  # of the base model, along the chat model's axis; ARCHAIC and PROFESSIONAL

    def claims(self) -> list[Claim]:
        steered, random = self.sweep.changes(ARCHAIC, -0.5, since=0.5)
        return [
            *(
                Claim(
                    f"PC{i + 1} of persona space exists before post-training: cosine of base and "
                    "chat model",
                    f"{paper} (sec. 3.3)", component.base, Rule(at_least=0.8),
                    component.random_weights, control_must_fail=True,
                )
                for i, (component, paper) in enumerate(
                    zip(self.components, (".93", ".87", ".83"), strict=True)
                )
            ),
            Claim(
                "The axis itself exists before post-training: cosine of base and chat model",
                "", self.axis.base, Rule(at_least=0.8), self.axis.random_weights,
                control_must_fail=True, of_paper=False,
            ),
            Claim(
                "The axis steers the base model: share of archaic replies at -0.5 minus that at "
                "+0.5",
                "shifts (fig. 6)", steered, Rule(at_least=0.3), random, control_must_fail=True,
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
            ([at.axis_random_weights for at in self.cosines], INK,
             "axis, chat model and random weights"),
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
        return Cosines(
            layer=layer,
            pc1=pc_cosine(lab.axis, base_axis, layer, 0),
            axis=axis_cosine(lab.axis, base_axis, layer),
            pc1_random_weights=pc_cosine(lab.axis, random_weights, layer, 0),
            axis_random_weights=axis_cosine(lab.axis, random_weights, layer),
        )

    middle = len(lab.axis.vectors) // 2

    def likeness(cosine: Callable[[Axis, Axis], float]) -> Likeness:
        return Likeness(
            base=over_shared_roles(lab.axis, base_axis, cosine),
            random_weights=over_shared_roles(lab.axis, random_weights, cosine),
        )

    return BaseAndChat(
        cosines=[cosines(layer) for layer in range(len(lab.axis.vectors))],
        components=[likeness(partial(pc_cosine, layer=middle, component=i)) for i in range(3)],
        axis=likeness(partial(axis_cosine, layer=middle)),
        sweep=sweep(base_lab, coefficients, ask, rates),
    )


def pc_cosine(a: Axis, b: Axis, layer: int, component: int) -> float:
    """The unsigned cosine of one principal component of two models at a layer."""
    return (a.pca(layer)[0][component] @ b.pca(layer)[0][component]).abs().item()


def axis_cosine(a: Axis, b: Axis, layer: int) -> float:
    """The unsigned cosine of the axes of two models at a layer."""
    return (a.unit()[layer] @ b.unit()[layer]).abs().item()


def over_shared_roles(a: Axis, b: Axis, cosine: Callable[[Axis, Axis], float]) -> Estimate:
    """A cosine of two models, with an interval from resampling the roles that both have."""
    names = [role for role in a.roles if role in b.roles]
    of_a, of_b = (torch.tensor([x.roles.index(name) for name in names]) for x in (a, b))
    return bootstrap(
        lambda chosen: cosine(with_roles(a, of_a[chosen]), with_roles(b, of_b[chosen])),
        len(names),
        within=(0, 1),
    )
