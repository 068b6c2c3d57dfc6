"""What does the judge's filter change in an open model's persona space? (paper: section 2)

The paper averages only responses that are in role, and so does `PersonaSpace` here. The axis that
all other experiments use is fitted on all responses. With few questions for each role, the filter
keeps other questions for other roles: then role vectors also differ by question.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from minaxis.axis import Axis, layer_table
from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.figures import BLUE, GREY, ORANGE, legend_below, load_pyplot
from minaxis.paper.space import cosine_with_pc1, over_roles
from minaxis.support.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Unfiltered(Experiment):
    """The cosine of the axis and PC1, from all responses and from those in role."""

    name: ClassVar[str] = "persona space, unfiltered"

    cosine: Estimate  # at the middle layer, from all responses
    random_weights: Estimate  # the same for random weights
    axes: float  # cosine of the two axes at the middle layer
    by_layer: list[float]  # cosine from all responses
    by_layer_filtered: list[float]
    by_layer_random_weights: list[float]  # from all responses

    def claims(self) -> list[Claim]:
        return [
            Claim(
                "The same cosine of the axis and PC1, but of all responses, in role or not",
                "", self.cosine, Rule(at_least=0.71), self.random_weights,
                control_must_fail=True, of_paper=False,
            ),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        figure, ax = load_pyplot().subplots(figsize=(6, 3), layout="constrained")
        for cosines, colour, label in (
            (self.by_layer, BLUE, "all responses"),
            (self.by_layer_filtered, ORANGE, "responses in role"),
            (self.by_layer_random_weights, GREY, "random weights, all responses"),
        ):
            ax.plot(range(len(cosines)), cosines, "o-", color=colour, label=label, markersize=4)
        ax.set_ylim(0, 1.03)
        ax.set_xlabel("layer")
        ax.set_title("Cosine of the axis and PC1")
        legend_below(ax, 3)
        return {"unfiltered": figure}


def measure_unfiltered(axis: Axis, filtered: Axis, random_weights: Axis) -> Unfiltered:
    """Compare the axis of all responses with the axis of the responses in role."""
    layer = len(axis.vectors) // 2

    def by_layer(axis: Axis) -> list[float]:
        return [row["cos_pc1"] for row in layer_table(axis)]

    return Unfiltered(
        cosine=over_roles(axis, partial(cosine_with_pc1, layer=layer)),
        random_weights=over_roles(random_weights, partial(cosine_with_pc1, layer=layer)),
        axes=torch.dot(axis.unit()[layer], filtered.unit()[layer]).item(),
        by_layer=by_layer(axis),
        by_layer_filtered=by_layer(filtered),
        by_layer_random_weights=by_layer(random_weights),
    )
