"""Does a cap cost right answers? (paper: section 5, figure 10)"""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar

from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.figures import BLUE, GREY, INK, load_pyplot
from minaxis.paper.lab import Compared
from minaxis.support.stats import PairedChange, Rate, mean_and_range, paired_change, rate
from minaxis.tiny.lab import TinyLab, joined
from minaxis.tiny.questions import TASKS, tasks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL = "all"  # the questions of every topic together


@dataclass(frozen=True)
class Changes:
    """Rates without an intervention, and their changes under caps on the same questions."""

    baseline: dict[str, Rate]  # kind of question -> rate
    capped: dict[str, PairedChange]
    random: list[dict[str, PairedChange]]  # capped along each random axis


def changes(flags: Compared[dict[str, list[bool]]]) -> Changes:
    """The rates and their changes.

    Args:
        flags: kind of question -> for each question, is the reply right?
    """

    def change(after: dict[str, list[bool]]) -> dict[str, PairedChange]:
        return {kind: paired_change(flags.baseline[kind], after[kind]) for kind in after}

    return Changes(
        baseline={kind: rate(values) for kind, values in flags.baseline.items()},
        capped=change(flags.capped),
        random=[change(after) for after in flags.random],
    )


@dataclass(frozen=True)
class Capability(Experiment):
    """The accuracy on each topic and on all questions, and its change under a cap."""

    name: ClassVar[str] = "capability"

    accuracy: Changes

    def claims(self) -> list[Claim]:
        return [accuracy_kept_claim(self.accuracy, ALL)]

    def figures(self) -> dict[str, "Figure"]:
        return {"capability": changes_figure(self.accuracy)}


def measure_capability(lab: TinyLab, *, samples: int = 64) -> Capability:
    """Ask `samples` held-out questions on each topic that has right answers."""
    requests = tasks(lab.world, Random(lab.seed), samples)

    def right() -> dict[str, list[bool]]:
        readings = lab.ask_parts(requests)
        flags = {topic: [r.right for r in replies] for topic, replies in readings.items()}
        return flags | {ALL: joined(flags, TASKS)}

    return Capability(changes(lab.compare(right)))


def accuracy_kept_claim(accuracy: Changes, kind: str) -> Claim:
    """The claim that a cap costs no accuracy: at most three questions in a hundred."""
    return Claim(
        "A cap costs no capability: change of the accuracy on the same questions",
        "-.01 to +.03 (fig. 10)", accuracy.capped[kind].estimate, Rule(at_least=-0.03),
        mean_and_range([random[kind].difference for random in accuracy.random]),
    )  # fmt: skip


def changes_figure(accuracy: Changes) -> "Figure":
    """The change of each rate under a cap, with the baseline beside its name."""
    figure, ax = load_pyplot().subplots(figsize=(6.5, 2.6), layout="constrained")
    kinds = list(accuracy.baseline)
    for i, kind in enumerate(kinds):
        for j, random in enumerate(accuracy.random):
            ax.plot(random[kind].difference, i - 0.22, "|", color=GREY, markersize=10,
                    label="random directions" if i + j == 0 else None)  # fmt: skip
        change = accuracy.capped[kind]
        below, above = change.difference - change.low, change.high - change.difference
        ax.errorbar(change.difference, i, xerr=[[below], [above]], color=BLUE, marker="o",
                    label="the axis" if i == 0 else None)  # fmt: skip
    ax.axvline(0, color=INK, linewidth=1)
    labels = [f"{kind}\n(baseline {accuracy.baseline[kind].rate:.2f})" for kind in kinds]
    ax.set_yticks(range(len(kinds)), labels)
    ax.set_ylim(len(kinds) - 0.5, -0.6)
    ax.set_xlabel("change of the rate under a cap, same questions, 95 % interval")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
