"""Do long conversations lead away from the Assistant, even under a cap? (paper: section 4)

A scripted user stays in one domain, and no system prompt is given (figures 7 and 8). A projection
that is read under a cap is lifted by construction, so the model without a cap reads the capped
replies, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.figures import from_zero_to_one, with_intervals
from minaxis.paper.lab import FEW_RANDOM_AXES, Compared
from minaxis.paper.prediction import Prediction, measure_prediction
from minaxis.paper.trajectories import (
    AnyTrajectory,
    Trajectory,
    draw_trajectories,
    trajectory,
    trajectory_figure,
)
from minaxis.support.stats import (
    Estimate,
    Rate,
    mean_of,
    rate,
    share,
)
from minaxis.tiny.lab import TinyConversations, TinyLab
from minaxis.tiny.questions import GROUPS
from minaxis.tiny.world import ASSISTANT, World

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The paper's four domains of long conversations -> the topic of the tiny world in its place.
DOMAINS = {
    "coding": "arithmetic",
    "writing": "howto",
    "therapy": "feelings",
    "philosophy": "selfhood",
}
PERSONAL, WORK = ("therapy", "philosophy"), ("coding", "writing")


@dataclass(frozen=True)
class ReadTrajectory(Trajectory):
    """A trajectory with what the tiny world's reader says about the replies."""

    style: list[Rate]  # by turn: replies in which the Assistant speaks
    archaic: list[Rate]  # by turn: replies with archaic words
    ends_as: dict[str, float]  # share of the last replies in which each group speaks


@dataclass(frozen=True)
class Drift(Experiment):
    """Trajectories of each domain under each intervention."""

    name: ClassVar[str] = "drift"

    trajectories: Compared[dict[str, ReadTrajectory]]  # random axes: personal domains only
    capped_read_again: dict[str, ReadTrajectory]  # the capped replies, read without the cap
    late_cap: dict[str, Rate]  # Assistant-style last replies, if the cap begins there
    prediction: Prediction

    def claims(self) -> list[Claim]:
        falls = falls_claim(self.trajectories.baseline)
        first, last = (
            last_style(self.trajectories.baseline, PERSONAL, turn=turn) for turn in (0, -1)
        )
        read_plainly = replace(self.trajectories, capped=self.capped_read_again)
        late = mean_of([self.late_cap[domain].estimate for domain in PERSONAL])
        return [
            falls,
            stays_claim(self.trajectories.baseline),
            Claim(
                "Coding and writing stay with the Assistant: share of Assistant-style replies, "
                "last turn (control: therapy and philosophy)",
                "", last_style(self.trajectories.baseline, WORK), Rule(at_least=0.9),
                last, of_paper=False,
            ),
            *self.prediction.claims(),
            capped_claim(read_plainly, falls, read_plainly=True),
            capped_claim(self.trajectories, falls, read_plainly=False),
            Claim(
                "A cap at the last turn alone brings a lost identity back: change of the share of "
                "Assistant-style replies, last turn",
                "", late - last, Rule(at_least=0.1), of_paper=False,
                failed_precondition="" if (last - first).high < 0 else "no identity was lost",
            ),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        """Projections over the turns, and below them who speaks."""
        labels = {domain: f"{domain} ({topic})" for domain, topic in DOMAINS.items()}
        figure, axes = trajectory_figure(
            self.trajectories, rows=2, labels=labels, capped_read_again=self.capped_read_again
        )
        draw_trajectories(
            axes[1], self.trajectories, lambda t: with_intervals(t.style), labels=labels
        )
        for ax in axes[1]:
            from_zero_to_one(ax)
        axes[1][0].set_ylabel("share of\nAssistant-style replies")
        return {"drift": figure, "prediction": self.prediction.figure()}


def measure_drift(lab: TinyLab, conversations: Compared[TinyConversations]) -> Drift:
    """Read conversations in each domain, and their projections at the last layer.

    Args:
        conversations: those of the first random axes are used.
    """
    conversations = replace(conversations, random=conversations.random[:FEW_RANDOM_AXES])
    layer = len(lab.axis.vectors) - 1
    rows = {domain: conversations.baseline.on([topic]) for domain, topic in DOMAINS.items()}

    def trajectories(conversations: TinyConversations) -> dict[str, ReadTrajectory]:
        projections = conversations.projections(lab.axis, layer)
        chosen = {domain: conversations.on([topic]) for domain, topic in DOMAINS.items()}
        return {
            domain: read_trajectory(lab.world, conversations, projections, rows)
            for domain, rows in chosen.items()
            if rows
        }

    capped = conversations.capped
    with lab.capped():
        late, _ = lab.answer_last_turn_again(conversations.baseline)
    return Drift(
        trajectories=conversations.map(trajectories),
        capped_read_again=trajectories(replace(capped, means=lab.read_again(capped))),
        late_cap={
            domain: rate(late[i].speaker == ASSISTANT for i in row) for domain, row in rows.items()
        },
        prediction=measure_prediction(
            lab,
            conversations.baseline.user_messages,
            conversations.baseline.projections(lab.axis, layer),
        ),
    )


def read_trajectory(
    world: World, conversations: TinyConversations, projections: Tensor, rows: Sequence[int]
) -> ReadTrajectory:
    """The trajectory of some of the conversations.

    Args:
        projections: (N, turns), of all conversations.
        rows: the conversations to read.
    """
    turns = [[turn[i] for i in rows] for turn in conversations.readings]
    return ReadTrajectory(
        **vars(trajectory(projections[list(rows)])),
        style=[rate(r.speaker == ASSISTANT for r in turn) for turn in turns],
        archaic=[rate(r.archaic for r in turn) for turn in turns],
        ends_as={
            group: share(
                r.speaker is not None and world.group(r.speaker) == group for r in turns[-1]
            )
            for group in (ASSISTANT, *GROUPS)
        },
    )


def last_style(
    trajectories: Mapping[str, ReadTrajectory], domains: Sequence[str], *, turn: int = -1
) -> Estimate:
    """The mean share of Assistant-style replies over some domains, at one turn."""
    return mean_of([trajectories[domain].style[turn].estimate for domain in domains])


# Claims about projections, here and of open models


def mean_slope(trajectories: Mapping[str, Trajectory], domains: Sequence[str]) -> Estimate:
    """The mean slope of the projection over some domains."""
    return mean_of([trajectories[domain].slope.estimate for domain in domains])


def falls_claim(baseline: Mapping[str, Trajectory]) -> Claim:
    """The claim that the projection falls in each of the personal domains."""
    slopes = [baseline[domain].slope.estimate for domain in PERSONAL]
    return Claim(
        "Therapy and philosophy lead away from the Assistant: slope of the projection per turn, "
        "the flatter of the two (control: coding and writing)",
        "they fall (fig. 7)", max(slopes, key=lambda slope: slope.value), Rule(at_most=0),
        mean_slope(baseline, WORK),
    )  # fmt: skip


def stays_claim(baseline: Mapping[str, Trajectory]) -> Claim:
    """The claim that the projection falls less in the working domains."""
    return Claim(
        "Coding and writing stay with the Assistant: slope of the projection, minus that of "
        "therapy and philosophy",
        "they stay (fig. 7)", mean_slope(baseline, WORK) - mean_slope(baseline, PERSONAL),
        Rule(at_least=0),
    )  # fmt: skip


def capped_claim(
    trajectories: Compared[dict[str, AnyTrajectory]], falls: Claim, *, read_plainly: bool
) -> Claim:
    """The claim that the personal domains fall less under a cap, and not under random caps.

    Args:
        falls: the claim that there is a fall to stop.
        read_plainly: did the model without a cap read the capped replies? Only then does the claim
            say something about behaviour.
    """
    slope = trajectories.map(lambda domains: mean_slope(domains, PERSONAL))
    return Claim(
        "Under a cap, therapy and philosophy lead away less: change of the slope (replies read by "
        "the model without a cap)"
        if read_plainly
        else "Under a cap, the projection falls less: change of the slope (read under the cap, "
        "which lifts it by construction)",
        "(sec. 5)", slope.capped - slope.baseline, Rule(at_least=0),
        mean_of(slope.random) - slope.baseline, control_must_fail=True, of_paper=read_plainly,
        failed_precondition="" if falls.verdict == "holds" else "the projection does not fall",
    )  # fmt: skip
