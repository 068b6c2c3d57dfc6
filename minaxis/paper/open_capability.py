"""What does a cap cost an open model? (paper: section 5, figure 10)

Like the paper, this counts right answers. Unlike the paper, it also measures the perplexity of a
fixed text, requested role-play, and how often the cap fires in ordinary replies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from minaxis.model import Transformer
from minaxis.paper.capability import Changes, accuracy_kept_claim, changes, changes_figure
from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.costs import CapFireRate, cap_fire_rates, cap_fires_row
from minaxis.paper.lab import RANDOM_AXES, Compared
from minaxis.paper.open_lab import (
    IN_ROLE,
    IS_GARBLED,
    Flags,
    OpenLab,
    read_texts,
    request_chats,
    role_requests,
    says,
)
from minaxis.paper.open_speakers import chat
from minaxis.paper.steering import ACCURACY
from minaxis.support.stats import Estimate, mean_and_range, mean_with_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class OpenCapability(Experiment):
    """Changes of rates under a cap on the same questions, perplexities, and cap fire rates."""

    name: ClassVar[str] = "capability"

    rates: Changes  # ACCURACY, and requested role-play
    perplexity_ratio: Estimate  # capped over baseline, on the tokens of a fixed text
    random_perplexity_ratios: list[float]
    cap_fire_rates: list[CapFireRate]  # by layer

    def claims(self) -> list[Claim]:
        return [
            accuracy_kept_claim(self.rates, ACCURACY),
            Claim(
                "A cap costs no perplexity: perplexity of a fixed text, capped over baseline",
                "", self.perplexity_ratio, Rule(at_most=1.1),
                mean_and_range(self.random_perplexity_ratios), of_paper=False,
            ),
            self._cost("A cap keeps requested role-play: change of the share in role", IN_ROLE),
            self._cost("A cap garbles requested role-play: change of the share", IS_GARBLED),
            cap_fires_row(self.cap_fire_rates),
        ]  # fmt: skip

    def _cost(self, text: str, measured: str) -> Claim:
        rule = Rule(at_least=-0.1) if measured == IN_ROLE else Rule()
        random = mean_and_range([change[measured].difference for change in self.rates.random])
        return Claim(
            text, "", self.rates.capped[measured].estimate, rule, random, of_paper=False
        )  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        return {"capability": changes_figure(self.rates)}


def measure_open_capability(
    lab: OpenLab, prompts: Sequence[list[int]], replies: Sequence[list[int]], *, each: int = 2
) -> OpenCapability:
    """Ask questions with right answers, request role-play, and read a text.

    Args:
        prompts, replies: token ids of ordinary replies that the Assistant gave without a cap.
        each: number of requests to each role.
    """
    texts = read_texts()
    checked, requests = texts["checked"], role_requests(lab.roles, each)
    chats = [chat(question) for question, _ in checked] + request_chats(requests)
    text = lab.tokenizer.encode(texts["text"])

    def flags(replies: list[str]) -> Flags:
        # This runs outside of the intervention, because the judge is the unchanged model.
        answers = zip(replies, checked, strict=False)
        right = {ACCURACY: [says(reply, right) for reply, (_, right) in answers]}
        return right | lab.role_play(requests, replies[len(checked) :])

    answered = lab.compare(lambda: lab.answer(chats)[0])
    losses = lab.compare(lambda: token_losses(lab.model, text), random_axes=RANDOM_AXES)
    return OpenCapability(
        rates=changes(answered.map(flags)),
        perplexity_ratio=perplexity_ratio(losses, losses.capped),
        random_perplexity_ratios=[perplexity_ratio(losses, r).value for r in losses.random],
        cap_fire_rates=cap_fire_rates(lab, prompts, replies),
    )


@torch.no_grad()
def token_losses(model: Transformer, text: Sequence[int]) -> Tensor:
    """Minus the log-probability of each token of a text but the first: (T - 1,), in nats."""
    ids = torch.tensor(text, device=model.device)
    logits = model(ids[None, :-1])[0].float()  # (T - 1, V)
    return -logits.log_softmax(-1).gather(-1, ids[1:, None])[:, 0].cpu()


def perplexity_ratio(losses: Compared[Tensor], other: Tensor) -> Estimate:
    """Perplexity under an intervention over that of the baseline, on the same tokens."""
    log = mean_with_error(other - losses.baseline).estimate
    return Estimate(exp(log.value), exp(log.low), exp(log.high))
