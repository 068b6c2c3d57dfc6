"""What does steering along the axis do to an open model? (paper: section 3.2, figures 4 and 6)

Away from the Assistant, does it still say that it is an assistant? Toward it, does the Assistant
answer in place of a requested role? The coefficients are half of those of the tiny model: SmolLM2's
replies at -0.5 and +0.5 are nearly all garbled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from minaxis.axis import Axis
from minaxis.paper.capability import Changes, changes, changes_figure
from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.lab import FEW_RANDOM_AXES, Compared
from minaxis.paper.open_lab import (
    AS_ASSISTANT,
    SAYS_ASSISTANT,
    Flags,
    OpenLab,
    read_texts,
    request_chats,
    role_requests,
    says,
)
from minaxis.paper.open_speakers import chat
from minaxis.support.stats import mean_and_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AWAY, TOWARD = -0.25, 0.25


@dataclass(frozen=True)
class OpenSteering(Experiment):
    """Rates, and their changes on the same questions. "Capped" means steered along the axis."""

    name: ClassVar[str] = "steering"

    away: Changes  # SAYS_ASSISTANT
    toward: Changes  # of requested role-play

    def claims(self) -> list[Claim]:
        return [
            changed_claim(
                "Steering away from the Assistant (-0.25) stops it from saying that it is an "
                "assistant: change of the share",
                self.away, SAYS_ASSISTANT, Rule(at_most=-0.3),
            ),
            changed_claim(
                "Steering toward the Assistant (+0.25) makes the Assistant answer requests for "
                "role-play: change of the share (a garbled reply does not count)",
                self.toward, AS_ASSISTANT, Rule(at_least=0.1),
            ),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        both = Changes(
            baseline=self.away.baseline | self.toward.baseline,
            capped=self.away.capped | self.toward.capped,
            random=[a | b for a, b in zip(self.away.random, self.toward.random, strict=True)],
        )
        figure = changes_figure(both)
        figure.axes[0].set_xlabel(
            "change of the rate on the same questions, 95 % interval\n"
            f"(first row: steered by {AWAY}, the others by {TOWARD:+})"
        )
        return {"steering": figure}


def changed_claim(text: str, rates: Changes, measured: str, rule: Rule) -> Claim:
    """The claim that steering changes a rate, and that steering along random axes does not."""
    random = mean_and_range([change[measured].difference for change in rates.random])
    return Claim(
        text, "it does (fig. 4, 6)", rates.capped[measured].estimate, rule, random,
        control_must_fail=True,
    )  # fmt: skip


def measure_open_steering(lab: OpenLab, *, repeats: int = 6, each: int = 2) -> OpenSteering:
    """Steer along the axis and along random axes, in both directions.

    Args:
        repeats: how often each question about identity is asked. Every reply is sampled anew.
        each: number of requests to each role.
    """
    texts, requests = read_texts(), role_requests(lab.roles, each)
    identity = [chat(question) for question in texts["identity"] * repeats]

    def identities(replies: list[str]) -> Flags:
        words = texts["says it is an assistant"]
        return {SAYS_ASSISTANT: [says(reply, words) for reply in replies]}

    away = steer(lab, AWAY, lambda: lab.answer(identity)[0])
    toward = steer(lab, TOWARD, lambda: lab.answer(request_chats(requests))[0])
    return OpenSteering(
        away=changes(away.map(identities)),
        toward=changes(toward.map(lambda replies: lab.role_play(requests, replies))),
    )


def steer(lab: OpenLab, coefficient: float, ask: Callable[[], list[str]]) -> Compared[list[str]]:
    """The replies without an intervention, and steered along the axis and along random axes."""

    def steered(axis: Axis) -> list[str]:
        with lab.steered(coefficient, axis):
            return ask()

    random = [steered(axis) for axis in lab.random_axes[:FEW_RANDOM_AXES]]
    return Compared(ask(), steered(lab.axis), random)
