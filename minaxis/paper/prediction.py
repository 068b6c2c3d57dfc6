"""Does the user's latest message predict where the reply projects, and how it moved?
(paper: section 4, figure 8)"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minaxis.hooks import capture
from minaxis.model import Transformer
from minaxis.paper.claims import Claim, verdict
from minaxis.paper.figures import BLUE, GREY, INK, load_pyplot
from minaxis.paper.lab import Lab
from minaxis.support.stats import ridge_r2
from minaxis.tokenizer import AnyTokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Prediction:
    """R^2 of ridge regressions from the latest message, cross-validated."""

    projection: float  # of the reply
    change: float  # of the projection since the previous reply
    projection_shuffled: float  # the control: the messages are shuffled

    def claims(self) -> list[Claim]:
        return [
            Claim(
                "The latest message predicts the projection of the reply: cross-validated R^2",
                ".53 to .77 (fig. 8)", self.projection, self.projection_shuffled,
                verdict(self.projection > 0.5, self.projection > 0.2),
            ),
            Claim(
                "The latest message hardly predicts the change of the projection: "
                "cross-validated R^2",
                ".10 (fig. 8)", self.change, None,
                verdict(self.change < 0.2 < self.projection, self.change < self.projection / 2),
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
        ax.barh(labels, values, color=(GREY, BLUE, BLUE))
        for i, value in enumerate(values):
            ax.annotate(f" {value:.2f}", (max(value, 0), i), va="center")
        ax.axvline(0, color=INK, linewidth=1)
        ax.set_xlim(min(-0.05, *values), 1)
        ax.set_xlabel("variance explained, cross-validated $R^2$")
        ax.set_title("What the user's latest message predicts")
        return figure


def measure_prediction(lab: Lab, user_messages: list[list[str]], projections: Tensor) -> Prediction:
    """Fit ridge regressions in five folds. Each conversation is in one fold.

    A message is represented by the model's own mean activation over its tokens, read alone, after
    the second block. This is early enough to be about the words.

    Args:
        user_messages: by turn, the message of each of N conversations.
        projections: (N, turns) of the replies.
    """
    distinct = sorted({message for turn in user_messages for message in turn})
    embedded = {message: embedding(lab.model, lab.tokenizer, message) for message in distinct}
    x = torch.stack([torch.stack([embedded[m] for m in t]) for t in user_messages], 1)  # (N, T, D)
    groups = torch.arange(len(x))[:, None].expand(projections.shape)
    generator = torch.Generator().manual_seed(lab.seed)
    shuffled = x.flatten(0, 1)[torch.randperm(projections.numel(), generator=generator)].view_as(x)

    def r2(x: Tensor, y: Tensor, groups: Tensor) -> float:
        used = ~y.flatten().isnan()  # an empty reply has no projection
        return ridge_r2(x.flatten(0, 1)[used], y.flatten()[used], groups.flatten()[used])

    return Prediction(
        projection=r2(x, projections, groups),
        change=r2(x[:, 1:], projections.diff(dim=1), groups[:, 1:]),
        projection_shuffled=r2(shuffled, projections, groups),
    )


@torch.no_grad()
def embedding(model: Transformer, tokenizer: AnyTokenizer, text: str) -> Tensor:
    """The mean activation (D,), float32, over a text's tokens after block 1."""
    with capture(model, [1]) as seen:
        model.model(torch.tensor([tokenizer.encode(text)], device=model.lm_head.weight.device))
    return seen[1][0].mean(0).float().cpu()
