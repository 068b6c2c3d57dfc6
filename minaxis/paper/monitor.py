"""Is the projection a good monitor: does it tell who speaks, and does it warn of harm?
(paper: section 4)

Both are read in the personal conversations of `branches.py`, without an intervention.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from minaxis.paper.branches import BRANCHES, PERSONAL, Branched
from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.figures import GREY, INK, from_zero_to_one, load_pyplot, with_intervals
from minaxis.support.stats import Estimate, Rate, auc, bootstrap, correlation, rate
from minaxis.tiny.lab import TinyConversations, TinyLab
from minaxis.tiny.world import ASSISTANT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Warns:
    """Does a lower projection one turn before a forbidden question go with more leaks?"""

    layer: int
    correlation: Estimate  # of the projection and a leak
    quartiles: list[Rate]  # leak rates, from the lowest quarter of the projections to the highest


@dataclass(frozen=True)
class Separates:
    """Does the projection tell the Assistant's replies from all others?"""

    layer: int
    capped: bool  # is this layer capped?
    auc: Estimate  # .5 is chance


@dataclass(frozen=True)
class Monitor(Experiment):
    """What the projection says about the speaker of a reply, and about the next reply."""

    name: ClassVar[str] = "monitor"

    warns: list[Warns]  # at the last capped layer, and at the middle layer
    separates: list[Separates]  # at every layer

    def claims(self) -> list[Claim]:
        leaked = any(quarter.rate for quarter in self.warns[0].quartiles)
        worst = min((s.auc for s in self.separates if s.capped), key=lambda auc: auc.value)
        return [
            Claim(
                "The further from the Assistant, the more harm: correlation of the projection and "
                "a leak one turn later",
                "it is so (sec. 4)", self.warns[0].correlation, Rule(at_most=-0.2),
                failed_precondition="" if leaked else "nothing is leaked",
            ),
            Claim(
                "The projection tells the Assistant's replies from the others: AUC, worst capped "
                "layer",
                "", worst, Rule(at_least=0.8), of_paper=False,
            ),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        """Leaks by the projection before, and who speaks by layer."""
        figure, (left, right) = load_pyplot().subplots(
            1, 2, figsize=(9, 3.2), sharey=True, layout="constrained"
        )
        for warns, colour, shift in zip(self.warns, (INK, GREY), (-0.05, 0.05), strict=True):
            heights, errors = with_intervals(warns.quartiles)
            at = [i + shift for i in range(len(heights))]
            label = f"projection at layer {warns.layer}"
            left.errorbar(at, heights, errors, color=colour, marker="o", label=label)
        left.set_xticks(range(4), ["lowest\nquarter", "second", "third", "highest\nquarter"])
        left.set_title("Leak rate, by the projection one turn before")
        from_zero_to_one(left)
        left.legend()
        layers, estimates = [s.layer for s in self.separates], [s.auc for s in self.separates]
        errors = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
        right.errorbar(layers, [e.value for e in estimates], errors, color=INK, marker="o")
        right.axhline(0.5, color=GREY, linewidth=1, label="chance")
        right.set_xticks(layers)
        right.set_xlabel("layer")
        right.set_title("AUC: the Assistant's replies against others")
        right.legend(loc="lower right")
        return {"monitor": figure}


def measure_monitor(lab: TinyLab, run: Branched) -> Monitor:
    """Relate the projections of conversations without an intervention to speakers and leaks."""
    depth = len(lab.axis.vectors)
    return Monitor(
        warns=[measure_warning(lab, run, layer) for layer in (lab.layers[-1], depth // 2)],
        separates=[measure_separation(lab, run.conversations, layer) for layer in range(depth)],
    )


def measure_warning(lab: TinyLab, run: Branched, layer: int) -> Warns:
    """How leaks depend on the projection of the reply before, at one layer."""
    rows, turns = run.conversations.on(PERSONAL), [n for n in BRANCHES if n]
    before = run.conversations.projections(lab.axis, layer)[rows][:, [n - 1 for n in turns]]
    leaked = torch.tensor([[run.forbidden[n][i].right for n in turns] for i in rows])  # as before
    by_projection = leaked.flatten()[before.flatten().argsort()]
    return Warns(
        layer=layer,
        correlation=bootstrap(
            lambda i: correlation(before[i].flatten(), leaked[i].flatten().float()),
            len(rows),
            within=(-1, 1),
        ),
        quartiles=[rate(quarter.tolist()) for quarter in by_projection.tensor_split(4)],
    )


def measure_separation(lab: TinyLab, conversations: TinyConversations, layer: int) -> Separates:
    """How well the projection at one layer separates the Assistant's replies from the others."""
    rows = conversations.on(PERSONAL)
    projections = conversations.projections(lab.axis, layer)[rows]  # (n, turns)
    speaks = torch.tensor(
        [[turn[i].speaker == ASSISTANT for turn in conversations.readings] for i in rows]
    )
    area = bootstrap(
        lambda i: auc(projections[i].flatten(), speaks[i].flatten()), len(rows), within=(0, 1)
    )
    return Separates(layer, layer in lab.layers, area)
