"""What does steering along the axis do to an open model? (paper: section 3.2, figures 4 and 6)"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from minaxis.paper.claims import Claim, Experiment
from minaxis.paper.open_lab import OpenLab, chat, read_texts, says
from minaxis.paper.steering import (
    ACCURACY,
    ROLE_PLAY,
    Rates,
    Sweep,
    changed_claim,
    suppressed_role_play_claim,
    sweep,
    sweep_figure,
)
from minaxis.support.stats import rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COEFFICIENTS = (-0.5, -0.25, 0.0, 0.25, 0.5)
SAYS_ASSISTANT = "says that it is an assistant"


@dataclass(frozen=True)
class OpenSteering(Experiment):
    """What steering does to an open model's replies."""

    name: ClassVar[str] = "steering"

    sweep: Sweep  # SAYS_ASSISTANT, ACCURACY, ROLE_PLAY

    def claims(self) -> list[Claim]:
        return [
            changed_claim(
                "Steering away from the Assistant (-0.5) stops it from saying that it is an "
                "assistant: change of the share",
                self.sweep, SAYS_ASSISTANT, -0.5, -1,
            ),
            suppressed_role_play_claim(self.sweep),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        return {"steering": sweep_figure(self.sweep)}


def measure_open_steering(
    lab: OpenLab, *, coefficients: Sequence[float] = COEFFICIENTS
) -> OpenSteering:
    """Steer along the axis and along random axes, in both directions."""
    texts = read_texts()
    identity, checked = texts["identity"], texts["checked"]
    chats = [chat(question) for question in [*identity, *(question for question, _ in checked)]]
    chats += lab.role_play.chats()

    def replies() -> list[str]:
        return lab.answer(chats)[0]

    def rates(replies: list[str]) -> Rates:
        names, right = replies[: len(identity)], replies[len(identity) :][: len(checked)]
        words = texts["says it is an assistant"]
        return {
            SAYS_ASSISTANT: rate(says(reply, words) for reply in names),
            ACCURACY: rate(
                says(reply, answers) for reply, (_, answers) in zip(right, checked, strict=True)
            ),
            ROLE_PLAY: rate(lab.role_play.adopted(replies[len(identity) + len(checked) :])),
        }

    return OpenSteering(sweep(lab, coefficients, replies, rates))
