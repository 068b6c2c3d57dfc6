"""What does a cap cost an open model? (paper: section 5, figure 10)

Like the paper, this counts right answers. Unlike the paper, it also measures the perplexity of a
fixed text, requested role-play, and how often the cap fires in ordinary replies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from minaxis.judging import response_logprob
from minaxis.paper.capability import Changes, accuracy_kept_claim, changes, changes_figure
from minaxis.paper.claims import Claim, Experiment, verdict
from minaxis.paper.costs import CapFireRate, cap_fire_rates, cap_fires_row
from minaxis.paper.lab import Compared
from minaxis.paper.open_lab import OpenLab, chat, read_texts, says
from minaxis.paper.steering import ACCURACY, ROLE_PLAY

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class OpenCapability(Experiment):
    """Changes of rates under a cap on the same questions, perplexities, and cap fire rates."""

    name: ClassVar[str] = "capability"

    rates: Changes  # ACCURACY and ROLE_PLAY
    perplexity: Compared[float]
    cap_fire_rates: list[CapFireRate]  # by layer

    def claims(self) -> list[Claim]:
        role_play = self.rates.capped[ROLE_PLAY]
        ratio = self.perplexity.map(lambda perplexity: perplexity / self.perplexity.baseline)
        return [
            accuracy_kept_claim(self.rates, ACCURACY),
            Claim(
                "A cap costs no perplexity: perplexity of a fixed text, capped over baseline",
                "(not measured)", ratio.capped, max(ratio.random),
                verdict(ratio.capped < 1.03, ratio.capped < 1.2),
            ),
            Claim(
                "A cost: the cap suppresses requested role-play: change of the share in role",
                "(not measured)", role_play.difference,
                min(random[ROLE_PLAY].difference for random in self.rates.random),
                verdict(role_play.high < 0, role_play.difference < -0.05),
            ),
            cap_fires_row(self.cap_fire_rates),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        return {"capability": changes_figure(self.rates)}


@dataclass(frozen=True)
class _Measured:
    """What the model does under one intervention."""

    right: list[bool]  # for each question that has a right answer
    role_play: list[str]  # the replies to requests for role-play
    perplexity: float


def measure_open_capability(
    lab: OpenLab, prompts: Sequence[list[int]], replies: Sequence[list[int]]
) -> OpenCapability:
    """Ask questions with right answers, request role-play, and read a text.

    Args:
        prompts, replies: token ids of ordinary replies that the Assistant gave without a cap.
    """
    texts = read_texts()
    checked = texts["checked"]
    chats = [chat(question) for question, _ in checked] + lab.role_play.chats()
    text = lab.tokenizer.encode(texts["text"])

    def measure() -> _Measured:
        replies, _ = lab.answer(chats)
        loss = -response_logprob(lab.model, [text[:1]], [text[1:]])
        return _Measured(
            right=[says(r, answers) for r, (_, answers) in zip(replies, checked, strict=False)],
            role_play=replies[len(checked) :],
            perplexity=loss.exp().item(),
        )

    def flags(measured: _Measured) -> dict[str, list[bool]]:
        # This runs outside of the intervention, because the judge is the unchanged model.
        return {ACCURACY: measured.right, ROLE_PLAY: lab.role_play.adopted(measured.role_play)}

    measured = lab.compare(measure)
    return OpenCapability(
        rates=changes(measured.map(flags)),
        perplexity=measured.map(lambda m: m.perplexity),
        cap_fire_rates=cap_fire_rates(lab, prompts, replies),
    )
