"""What does steering do, along the axis and along random directions? (paper: section 3.2)"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar, TypeVar

from minaxis.axis import Axis
from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.figures import (
    BLUE,
    control_band,
    from_zero_to_one,
    load_pyplot,
    with_intervals,
)
from minaxis.paper.lab import FEW_RANDOM_AXES, Lab
from minaxis.support.stats import Estimate, Rate, difference, mean_and_range, rate
from minaxis.tiny.lab import Readings, TinyLab, joined, personas_speak
from minaxis.tiny.questions import GROUPS, OPEN_TOPICS, TASKS, open_questions, role_play, tasks
from minaxis.tiny.world import ASSISTANT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COEFFICIENTS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)

# What is measured. The names are titles of the figure's panels.
ASSISTANT_STYLE = "Assistant-style replies"
ROLE_PLAY = "requested role-play kept"
ACCURACY = "accuracy"
ARCHAIC = "archaic replies"

Rates = dict[str, Rate]  # what is measured -> its rate
T = TypeVar("T")


@dataclass(frozen=True)
class Sweep:
    """The same rates at every coefficient, along the axis and along each random axis."""

    coefficients: list[float]
    axis: list[Rates]
    random: list[list[Rates]]

    def changes(
        self, measured: str, coefficient: float, *, since: float = 0.0
    ) -> tuple[Estimate, Estimate]:
        """By how much a coefficient changes a rate, compared with another coefficient.

        Returns:
            The change along the axis, and the mean and range of those along the random axes.
        """
        at, before = (self.coefficients.index(c) for c in (coefficient, since))
        changes = [
            difference(run[at][measured], run[before][measured])
            for run in (self.axis, *self.random)
        ]
        return changes[0], mean_and_range([change.value for change in changes[1:]])


def sweep(
    lab: Lab,
    coefficients: Sequence[float],
    ask: Callable[[], T],
    rates: Callable[[T], Rates],
) -> Sweep:
    """Steer the lab's model along its axis and along each random axis, and measure.

    Args:
        ask: called under steering.
        rates: called with what `ask` returned, without steering.
    """

    def steered(axis: Axis, coefficient: float) -> Rates:
        with lab.steered(coefficient, axis):
            replies = ask()
        return rates(replies)

    along_axis = [steered(lab.axis, c) for c in coefficients]
    return Sweep(
        coefficients=list(coefficients),
        axis=along_axis,
        # With coefficient 0, all directions are the same, so no second run is needed.
        random=[
            [
                steered(axis, c) if c else unsteered
                for c, unsteered in zip(coefficients, along_axis, strict=True)
            ]
            for axis in lab.random_axes[:FEW_RANDOM_AXES]
        ],
    )


@dataclass(frozen=True)
class Steering(Experiment):
    """What steering does to the tiny model's replies.

    ASSISTANT_STYLE and ARCHAIC count replies with no persona requested, ROLE_PLAY those in which a
    requested character speaks.
    """

    name: ClassVar[str] = "steering"

    sweep: Sweep

    def claims(self) -> list[Claim]:
        return [
            changed_claim(
                "Steering away from the Assistant (-0.5) removes its style: change of the share "
                "of Assistant-style replies",
                self.sweep, ASSISTANT_STYLE, -0.5, Rule(at_most=-0.3),
            ),
            changed_claim(
                "Steering away from the Assistant (-0.5) brings another voice: change of the "
                "share of archaic replies",
                self.sweep, ARCHAIC, -0.5, Rule(at_least=0.3),
            ),
            suppressed_role_play_claim(self.sweep),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        return {"steering": sweep_figure(self.sweep)}


def measure_steering(
    lab: TinyLab, *, samples: int = 12, coefficients: Sequence[float] = COEFFICIENTS
) -> Steering:
    """Steer along the axis and along random axes, in both directions (paper: figures 4 and 6).

    Args:
        samples: number of questions on each topic.
    """
    rng = Random(lab.seed)
    requests = tasks(lab.world, rng, samples) | open_questions(lab.world, rng, samples)
    requests |= role_play(lab.world, rng, max(1, samples // 6))

    def rates(readings: Readings) -> Rates:
        no_persona = joined(readings, [*TASKS, *OPEN_TOPICS])
        roles_speak = personas_speak(joined(requests, GROUPS), joined(readings, GROUPS))
        return {
            ASSISTANT_STYLE: rate(r.speaker == ASSISTANT for r in no_persona),
            ROLE_PLAY: rate(roles_speak),
            ACCURACY: rate(r.right for r in joined(readings, TASKS)),
            ARCHAIC: rate(r.archaic for r in no_persona),
        }

    return Steering(sweep(lab, coefficients, lambda: lab.ask_parts(requests), rates))


def changed_claim(text: str, sweep: Sweep, measured: str, coefficient: float, rule: Rule) -> Claim:
    """The claim that steering changes a rate, and that steering along random axes does not.

    Args:
        measured: the name of the rate.
        rule: for the change since coefficient 0.
    """
    change, random = sweep.changes(measured, coefficient)
    return Claim(text, "it does (fig. 4, 6)", change, rule, random, control_must_fail=True)


def suppressed_role_play_claim(sweep: Sweep) -> Claim:
    """The claim that steering toward the Assistant makes the model resist role-play."""
    return changed_claim(
        "Steering toward the Assistant (+0.5) suppresses requested role-play: change of the share "
        "in role",
        sweep, ROLE_PLAY, 0.5, Rule(at_most=-0.1),
    )  # fmt: skip


def sweep_figure(sweep: Sweep) -> "Figure":
    """Each rate along the axis, and along the random directions."""
    figure, axes = load_pyplot().subplots(
        1, len(sweep.axis[0]), figsize=(9, 2.9), sharey=True, layout="constrained"
    )
    for ax, measured in zip(axes, sweep.axis[0], strict=True):
        runs = [[rates[measured].rate for rates in run] for run in sweep.random]
        control_band(ax, sweep.coefficients, runs, "random directions")
        heights, errors = with_intervals([rates[measured] for rates in sweep.axis])
        ax.errorbar(
            sweep.coefficients, heights, errors, color=BLUE, marker="o", markersize=4,
            label="the axis",
        )  # fmt: skip
        ax.set_title(measured)
        ax.set_xlabel("coefficient\n(mean residual norms)", fontsize=9)
        from_zero_to_one(ax)
    axes[0].set_ylabel("share of replies")
    axes[len(axes) // 2].legend(loc="lower center", fontsize=8)
    return figure
