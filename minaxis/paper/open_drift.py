"""Do long conversations lead an open model away from the Assistant, even under a cap?
(paper: section 4, figures 7 and 8)"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from minaxis.paper.claims import Claim, Experiment, verdict
from minaxis.paper.drift import PERSONAL, WORK
from minaxis.paper.lab import Compared, Conversations
from minaxis.paper.open_lab import OpenLab, read_texts
from minaxis.paper.prediction import Prediction, measure_prediction
from minaxis.paper.trajectories import Trajectory, trajectory, trajectory_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class OpenDrift(Experiment):
    """Trajectories of each domain under each intervention."""

    name: ClassVar[str] = "drift"

    trajectories: Compared[dict[str, Trajectory]]
    prediction: Prediction

    def claims(self) -> list[Claim]:
        baseline = self.trajectories.baseline
        personal, work = mean_slope(baseline, PERSONAL), mean_slope(baseline, WORK)
        error = max(baseline[domain].slope.error for domain in PERSONAL)
        capped = mean_slope(self.trajectories.capped, PERSONAL)
        random = mean_slope(self.trajectories.random[0], PERSONAL)
        return [
            Claim(
                "Therapy and philosophy lead away from the Assistant: slope of the projection per "
                "turn",
                "they fall (fig. 7)", personal, work,
                verdict(
                    personal < -2 * error and personal < 2 * min(work, 0), personal < min(work, 0)
                ),
            ),
            *self.prediction.claims(),
            Claim(
                "Under a cap, therapy and philosophy no longer lead away: slope of the projection",
                "(sec. 5)", capped, random,
                verdict(
                    personal < 0 and abs(capped) < abs(personal) / 3, abs(capped) < abs(personal)
                ),
            ),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        figure, _ = trajectory_figure(
            self.trajectories, rows=1, labels={d: d for d in self.trajectories.baseline}
        )
        return {"drift": figure, "prediction": self.prediction.figure()}


def measure_open_drift(lab: OpenLab, *, repeats: int = 2, turns: int = 8) -> OpenDrift:
    """Run conversations with scripted users, without a system prompt.

    Args:
        repeats: how often each of the two scripts of a domain is used.
    """
    scripts_of = read_texts()["talks"]  # domain -> scripts, each the messages of one user
    scripts = [script for domain in scripts_of.values() for script in domain * repeats]
    user_messages = [[script[turn] for script in scripts] for turn in range(turns)]
    each, layer = len(scripts) // len(scripts_of), lab.layers[-1]
    conversations = lab.compare(lambda: lab.converse(user_messages), random_axes=1)

    def trajectories(conversations: Conversations) -> dict[str, Trajectory]:
        projections = conversations.projections(lab.axis, layer)  # (N, turns)
        return {
            domain: trajectory(projections[i * each : (i + 1) * each])
            for i, domain in enumerate(scripts_of)
        }

    projections = conversations.baseline.projections(lab.axis, layer)
    return OpenDrift(
        trajectories=conversations.map(trajectories),
        prediction=measure_prediction(lab, user_messages, projections),
    )


def mean_slope(trajectories: dict[str, Trajectory], domains: Sequence[str]) -> float:
    """The mean slope of the projection over some domains."""
    return sum(trajectories[domain].slope.mean for domain in domains) / len(domains)
