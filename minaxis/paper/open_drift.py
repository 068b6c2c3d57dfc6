"""Do long conversations lead an open model away from the Assistant, even under a cap?
(paper: section 4, figures 7 and 8)

A projection that is read under a cap is lifted by construction. So the replies of the capped model
are also read by the model without a cap (the plain model).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from minaxis.paper.claims import Claim, Experiment
from minaxis.paper.drift import capped_claim, falls_claim, stays_claim
from minaxis.paper.lab import Compared, Conversations
from minaxis.paper.open_lab import OpenLab, read_texts
from minaxis.paper.prediction import Prediction, measure_prediction
from minaxis.paper.trajectories import Trajectory, trajectory, trajectory_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Trajectories = Compared[dict[str, Trajectory]]  # of each domain


@dataclass(frozen=True)
class OpenDrift(Experiment):
    """Trajectories of each domain under each intervention."""

    name: ClassVar[str] = "drift"

    read_under_cap: Trajectories  # by the model that gave the replies
    read_plainly: Trajectories  # the same replies, read by the model without a cap
    prediction: Prediction

    def claims(self) -> list[Claim]:
        falls = falls_claim(self.read_plainly.baseline)
        return [
            falls,
            stays_claim(self.read_plainly.baseline),
            *self.prediction.claims(),
            capped_claim(self.read_plainly, falls, read_plainly=True),
            capped_claim(self.read_under_cap, falls, read_plainly=False),
        ]

    def figures(self) -> dict[str, "Figure"]:
        figure, _ = trajectory_figure(
            self.read_under_cap,
            rows=1,
            labels={domain: domain for domain in self.read_plainly.baseline},
            capped_read_again=self.read_plainly.capped,
        )
        return {"drift": figure, "prediction": self.prediction.figure()}


def measure_open_drift(lab: OpenLab, *, each: int = 16, turns: int = 8) -> OpenDrift:
    """Run conversations with scripted users, without a system prompt. Each has its own script.

    Args:
        each: number of scripts of each domain, at most 16.
        turns: number of turns, at most 8.
    """
    # Domain -> scripts, each the messages of one user.
    scripts_of = {domain: s[:each] for domain, s in read_texts()["scripts"].items()}
    scripts = [script for domain in scripts_of.values() for script in domain]
    user_messages = [[script[turn] for script in scripts] for turn in range(turns)]
    layer = lab.layers[-1]
    conversations = lab.compare(lambda: lab.converse(user_messages), random_axes=1)

    def trajectories(conversations: Conversations) -> dict[str, Trajectory]:
        parts = conversations.projections(lab.axis, layer).split(
            [len(domain) for domain in scripts_of.values()]
        )  # for each domain (n, turns)
        return dict(zip(scripts_of, map(trajectory, parts), strict=True))

    def read_again(conversations: Conversations) -> Conversations:
        return replace(conversations, means=lab.read_again(conversations))

    plainly = Compared(
        conversations.baseline,
        read_again(conversations.capped),
        [read_again(random) for random in conversations.random],
    )
    return OpenDrift(
        read_under_cap=conversations.map(trajectories),
        read_plainly=plainly.map(trajectories),
        prediction=measure_prediction(
            lab, user_messages, conversations.baseline.projections(lab.axis, layer)
        ),
    )
