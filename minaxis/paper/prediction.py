"""Does the user's latest message predict where the reply projects, and how it moved?
(paper: section 4, figure 8)"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minaxis.hooks import capture
from minaxis.model import Transformer
from minaxis.paper.claims import Claim, Rule
from minaxis.paper.figures import BLUE, GREY, INK, load_pyplot
from minaxis.paper.lab import Lab
from minaxis.support.stats import Estimate, ridge_r2
from minaxis.tokenizer import AnyTokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Prediction:
    """R^2 of ridge regressions from the latest message, cross-validated."""

    projection: Estimate  # of the reply
    change: Estimate  # of the projection since the previous reply
    projection_shuffled: Estimate  # the control: each message has the embedding of another

    def claims(self) -> list[Claim]:
        return [
            Claim(
                "The latest message predicts the projection of the reply: cross-validated R^2",
                ".53 to .77 (fig. 8)", self.projection, Rule(at_least=0.53),
                self.projection_shuffled, control_must_fail=True,
            ),
            Claim(
                "The latest message hardly predicts the change of the projection: "
                "cross-validated R^2",
                ".10 (fig. 8)", self.change, Rule(at_most=0.2),
                failed_precondition=(
                    "" if self.projection.low > 0 else "it does not predict the projection either"
                ),
            ),
        ]  # fmt: skip

    def figure(self) -> "Figure":
        figure, ax = load_pyplot().subplots(figsize=(6, 2.2), layout="constrained")
        labels = (
            "projection of the reply,\nmessages shuffled (control)",
            "change since the reply before",
            "projection of the reply",
        )
        values = (self.projection_shuffled, self.change, self.projection)
        below, above = [v.value - v.low for v in values], [v.high - v.value for v in values]
        heights = [value.value for value in values]
        ax.barh(labels, heights, xerr=[below, above], color=(GREY, BLUE, BLUE),
                error_kw={"elinewidth": 1})  # fmt: skip
        for i, value in enumerate(values):
            ax.annotate(f" {value.value:.2f}", (max(value.high, 0), i), va="center")
        ax.axvline(0, color=INK, linewidth=1)
        ax.set_xlim(min(value.low for value in values) - 0.05, 1)
        ax.set_xlabel("variance explained, cross-validated $R^2$")
        ax.set_title("What the user's latest message predicts")
        return figure


def measure_prediction(lab: Lab, user_messages: list[list[str]], projections: Tensor) -> Prediction:
    """Fit ridge regressions that have seen neither the message nor the conversation.

    A message is represented by the model's own mean activation over its tokens, read alone, after
    the second block. This is early enough to be about the words.

    Users repeat messages, and replies of one conversation are alike. So a reply is predicted by a
    fit on other messages of other conversations. Conversations with the same script count as one.
    What remains: messages on one topic are alike, so R^2 may say no more than which topic it is.

    Args:
        user_messages: by turn, the message of each of N conversations.
        projections: (N, turns) of the replies.
    """
    scripts = list(zip(*user_messages, strict=True))  # N x turns
    messages = numbered([message for script in scripts for message in script]).view_as(projections)
    conversations = numbered(["\n".join(script) for script in scripts])[:, None].expand(
        projections.shape
    )
    distinct = sorted({message for script in scripts for message in script})
    embedded = torch.stack([embedding(lab.model, lab.tokenizer, m) for m in distinct])
    generator = torch.Generator().manual_seed(lab.seed)
    shuffled = embedded[torch.randperm(len(distinct), generator=generator)]

    def r2(embedded: Tensor, y: Tensor) -> Estimate:
        rows, conversation = messages[:, -y.shape[1] :], conversations[:, -y.shape[1] :]
        used = ~y.isnan()  # an empty reply has no projection
        return ridge_r2(embedded[rows[used]], y[used], [rows[used], conversation[used]])

    return Prediction(
        projection=r2(embedded, projections),
        change=r2(embedded, projections.diff(dim=1)),
        projection_shuffled=r2(shuffled, projections),
    )


def numbered(items: Sequence[str]) -> Tensor:
    """The number of each item among the distinct items in their order: (N,)."""
    number = {item: i for i, item in enumerate(sorted(set(items)))}
    return torch.tensor([number[item] for item in items])


@torch.no_grad()
def embedding(model: Transformer, tokenizer: AnyTokenizer, text: str) -> Tensor:
    """The mean activation (D,), float32, over a text's tokens after block 1."""
    with capture(model, [1]) as seen:
        model.model(torch.tensor([tokenizer.encode(text)], device=model.lm_head.weight.device))
    return seen[1][0].mean(0).float().cpu()
