"""Do long conversations lead away from the Assistant, even under a cap? (paper: section 4)

A scripted user stays in one domain, and no system prompt is given (figures 7 and 8).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from minaxis.paper.claims import Claim, Experiment, verdict
from minaxis.paper.figures import from_zero_to_one, with_intervals
from minaxis.paper.lab import Compared
from minaxis.paper.prediction import Prediction, measure_prediction
from minaxis.paper.trajectories import (
    Trajectory,
    draw_trajectories,
    trajectory,
    trajectory_figure,
)
from minaxis.support.stats import MeanWithError, Rate, mean_with_error, rate, share
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
class LateCap:
    """The last turn of the baseline conversations, answered again under a cap."""

    projection: MeanWithError
    style: Rate


@dataclass(frozen=True)
class Drift(Experiment):
    """Trajectories of each domain under each intervention."""

    name: ClassVar[str] = "drift"

    trajectories: Compared[dict[str, ReadTrajectory]]
    late_cap: dict[str, LateCap]
    prediction: Prediction

    def claims(self) -> list[Claim]:
        baseline, capped = self.trajectories.baseline, self.trajectories.capped
        (random,) = self.trajectories.random
        before, after = last_style(baseline, PERSONAL), last_style(capped, PERSONAL)
        late = sum(self.late_cap[d].style.rate for d in PERSONAL) / 2
        lost = last_style(baseline, PERSONAL, turn=0) - before
        work = last_style(baseline, WORK)
        falls, work_falls = mean_fall(baseline, PERSONAL), mean_fall(baseline, WORK)
        capped_falls, random_falls = mean_fall(capped, PERSONAL), mean_fall(random, PERSONAL)
        return [
            Claim(
                "Therapy and philosophy lead away from the Assistant: fall of the projection over "
                "a conversation",
                "they fall (fig. 7)", falls, work_falls,
                verdict(falls > 2 * max(work_falls, 0) and falls > 0.5, falls > max(work_falls, 0)),
            ),
            Claim(
                "Coding and writing stay with the Assistant: share of Assistant-style replies, "
                "last turn (control: therapy and philosophy)",
                "they stay (fig. 7)", work, before,
                verdict(work > 0.65 and before < 0.55, work > before + 0.1),
            ),
            *self.prediction.claims(),
            Claim(
                "Under a cap, therapy and philosophy no longer lead away: fall of the projection",
                "(sec. 5)", capped_falls, random_falls,
                verdict(capped_falls < falls / 3 < random_falls, capped_falls < falls),
            ),
            Claim(
                "A cap from the first turn on keeps the Assistant's identity: share of "
                "Assistant-style replies, last turn",
                "(not measured)", after, last_style(random, PERSONAL),
                verdict(after - before > max(lost / 2, 0.2), after - before > 0.1),
            ),
            Claim(
                "A cap at the last turn alone brings a lost identity back: share of "
                "Assistant-style replies, last turn",
                "(not measured)", late, before,
                verdict(late - before > max(lost / 2, 0.2), late - before > 0.1),
            ),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        """Projections over the turns, and below them who speaks."""
        labels = {domain: f"{domain} ({topic})" for domain, topic in DOMAINS.items()}
        figure, axes = trajectory_figure(self.trajectories, rows=2, labels=labels)
        draw_trajectories(
            axes[1], self.trajectories, lambda t: with_intervals(t.style), labels=labels
        )
        for ax in axes[1]:
            from_zero_to_one(ax)
        axes[1][0].set_ylabel("share of\nAssistant-style replies")
        return {"drift": figure, "prediction": self.prediction.figure()}


def measure_drift(lab: TinyLab, *, each: int = 64, turns: int = 8) -> Drift:
    """Run `each` conversations in each domain, and read the projections at the last layer."""
    layer, topics = len(lab.axis.vectors) - 1, list(DOMAINS.values())
    rows = {domain: slice(i * each, (i + 1) * each) for i, domain in enumerate(DOMAINS)}
    conversations = lab.compare(
        lambda: lab.run_conversations(topics, each=each, turns=turns), random_axes=1
    )

    def trajectories(conversations: TinyConversations) -> dict[str, ReadTrajectory]:
        projections = conversations.projections(lab.axis, layer)
        return {
            domain: read_trajectory(lab.world, conversations, projections, row)
            for domain, row in rows.items()
        }

    with lab.capped():
        readings, means = lab.answer_last_turn_again(conversations.baseline)
    late = lab.axis.project(means[:, layer], layer)  # (N,)
    return Drift(
        trajectories=conversations.map(trajectories),
        late_cap={
            domain: LateCap(
                projection=mean_with_error(late[row]),
                style=rate(r.speaker == ASSISTANT for r in readings[row]),
            )
            for domain, row in rows.items()
        },
        prediction=measure_prediction(
            lab,
            conversations.baseline.user_messages,
            conversations.baseline.projections(lab.axis, layer),
        ),
    )


def read_trajectory(
    world: World, conversations: TinyConversations, projections: Tensor, rows: slice
) -> ReadTrajectory:
    """The trajectory of some of the conversations.

    Args:
        projections: (N, turns), of all conversations.
        rows: the conversations to read.
    """
    turns = [turn[rows] for turn in conversations.readings]
    return ReadTrajectory(
        **vars(trajectory(projections[rows])),
        style=[rate(r.speaker == ASSISTANT for r in turn) for turn in turns],
        archaic=[rate(r.archaic for r in turn) for turn in turns],
        ends_as={
            group: share(
                r.speaker is not None and world.group(r.speaker) == group for r in turns[-1]
            )
            for group in (ASSISTANT, *GROUPS)
        },
    )


def mean_fall(trajectories: Mapping[str, Trajectory], domains: Sequence[str]) -> float:
    """The mean fall of the projection over some domains."""
    return sum(trajectories[d].fall for d in domains) / len(domains)


def last_style(
    trajectories: Mapping[str, ReadTrajectory], domains: Sequence[str], *, turn: int = -1
) -> float:
    """The mean share of Assistant-style replies over some domains, at one turn."""
    return sum(trajectories[d].style[turn].rate for d in domains) / len(domains)
