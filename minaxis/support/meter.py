"""Watch the axis in a terminal: the projection of each token, as colour or as a line of bars."""

import codecs
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minaxis.axis import Axis
from minaxis.hooks import capture
from minaxis.tokenizer import AnyTokenizer

_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = (208, 215, 223, 231, 195, 117, 39)  # orange (away) over white to blue (the Assistant)


@torch.no_grad()
def token_projections(model: nn.Module, axis: Axis, ids: Sequence[int], layer: int) -> Tensor:
    """Projection of every token of one conversation on the unit axis at a layer: (T,).

    Called inside `with capping(...)` or `with steering(...)`, it sees what they made of it.
    """
    device = next(model.parameters()).device
    with capture(model, [layer]) as seen:
        model(torch.tensor([list(ids)], device=device))
    return axis.project(seen[layer][0], layer).cpu()


def bars(values: Tensor, low: float, high: float, width: int = 60) -> str:
    """A line of bars from `low` to `high`, neighbouring tokens averaged to fit the width."""
    count = min(width, len(values))
    means = [part.mean().item() for part in values.tensor_split(count)] if count else []
    return "".join(_BARS[_step(m, low, high, len(_BARS))] for m in means)


def coloured(
    tokenizer: AnyTokenizer, ids: Sequence[int], values: Tensor, low: float, high: float
) -> str:
    """The text, each token on a background that says where between low and high it stands."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may span tokens
    parts = []
    for i, value in zip(ids, values.tolist(), strict=True):
        text = decoder.decode(tokenizer.token_bytes(i))
        colour = _COLOURS[_step(value, low, high, len(_COLOURS))]
        parts.append(f"\033[30;48;5;{colour}m{text}\033[0m")
    return "".join(parts)


def _step(value: float, low: float, high: float, steps: int) -> int:
    return min(max(int((value - low) / max(high - low, 1e-9) * steps), 0), steps - 1)


def gauge(value: float, floor: float, low: float, high: float, width: int = 24) -> str:
    """A scale from `low` to `high` with a mark at the value and a bar where the floor is."""
    scale = ["·"] * width
    scale[_step(floor, low, high, width)] = "|"
    scale[_step(value, low, high, width)] = "●"
    return "".join(scale)
