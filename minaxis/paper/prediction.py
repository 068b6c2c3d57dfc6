"""How well the user's latest message tells where a reply stands on the axis, and how it moved
(paper: section 4, figure 8)."""

import torch
from torch import Tensor

from minaxis.hooks import capture
from minaxis.model import Transformer
from minaxis.paper.claims import Claim, verdict
from minaxis.support.stats import ridge_r2
from minaxis.tokenizer import Tokenizer


def prediction(
    model: Transformer, tokenizer: Tokenizer, script: list[list[str]], along: Tensor, seed: int
) -> dict[str, float]:
    """Ridge regression, five folds, no conversation in two of them.

    A message is represented by the model's own mean activation over its tokens, read alone, after
    the second block: early enough to be about the words.

    Args:
        script: by turn, each conversation's message.
        along: (conversations, turns) projections of the replies.

    Returns:
        R^2 for the `position` of the reply and for the `change` since the reply before; and with
        the messages shuffled.
    """
    seen = {m: embedding(model, tokenizer, m) for m in sorted({m for t in script for m in t})}
    x = torch.stack([torch.stack([seen[m] for m in turn]) for turn in script], 1)  # (N, turns, D)
    groups = torch.arange(len(x))[:, None].expand(along.shape)
    order = torch.randperm(along.numel(), generator=torch.Generator().manual_seed(seed))
    change = along.diff(dim=1)

    def r2(x: Tensor, y: Tensor, groups: Tensor) -> float:
        spoken = ~y.flatten().isnan()
        return ridge_r2(x.flatten(0, 1)[spoken], y.flatten()[spoken], groups.flatten()[spoken])

    return {
        "position": r2(x, along, groups),
        "change": r2(x[:, 1:], change, groups[:, 1:]),
        "position, messages shuffled": r2(x.flatten(0, 1)[order].view_as(x), along, groups),
    }


@torch.no_grad()
def embedding(model: Transformer, tokenizer: Tokenizer, text: str) -> Tensor:
    """The mean activation (D,) over a text's tokens after block 1."""
    with capture(model, [1]) as seen:
        model.model(torch.tensor([tokenizer.encode(text)], device=model.lm_head.weight.device))
    return seen[1][0].mean(0).float().cpu()


def claims(found: dict[str, float]) -> list[Claim]:
    """Of what `prediction` returned."""
    position, change = found["position"], found["change"]
    return [
        Claim(
            "The latest message predicts the position: cross-validated R^2",
            ".53 to .77 (fig. 8)", position, found["position, messages shuffled"],
            verdict(position > 0.5, position > 0.2),
        ),
        Claim(
            "... but hardly the change: R^2",
            ".10 (fig. 8)", change, None, verdict(change < 0.2 < position, change < position / 2),
        ),
    ]  # fmt: skip
