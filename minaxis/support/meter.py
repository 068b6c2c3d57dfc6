"""Projections in a terminal: as the colour of each token, as a line of bars, or as a gauge."""

import codecs
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minaxis.axis import Axis
from minaxis.hooks import capture
from minaxis.loading.transformers_model import adapt
from minaxis.tokenizer import AnyTokenizer

_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = (208, 215, 223, 231, 195, 117, 39)  # orange (away) over white to blue (the Assistant)


@torch.no_grad()
def token_projections(model: nn.Module, axis: Axis, ids: Sequence[int], layer: int) -> Tensor:
    """The projection of every token of one conversation on the unit axis of a layer: (T,).

    Called inside `with capping(...)` or `with steering(...)`, it reads the changed activations.
    """
    device = next(model.parameters()).device
    with capture(model, [layer]) as seen:
        adapt(model)(torch.tensor([list(ids)], device=device), last=1)
    return axis.project(seen[layer][0], layer).cpu()


def bars(projections: Tensor, low: float, high: float, *, width: int = 60) -> str:
    """A line of bars from `low` to `high`. Neighbouring tokens are averaged to fit the width."""
    count = min(width, len(projections))
    means = [part.mean().item() for part in projections.tensor_split(count)] if count else []
    return "".join(_BARS[_step(m, low, high, len(_BARS))] for m in means)


def coloured(
    tokenizer: AnyTokenizer, ids: Sequence[int], projections: Tensor, low: float, high: float
) -> str:
    """The text. Each token's background shows where its projection lies from `low` to `high`."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may span tokens
    parts = []
    for token, projection in zip(ids, projections.tolist(), strict=True):
        text = decoder.decode(tokenizer.token_bytes(token))
        colour = _COLOURS[_step(projection, low, high, len(_COLOURS))]
        parts.append(f"\033[30;48;5;{colour}m{text}\033[0m")
    return "".join(parts)


def gauge(projection: float, floor: float, low: float, high: float, *, width: int = 24) -> str:
    """A scale from `low` to `high`, with a dot at the projection and a bar at the cap's floor."""
    scale = ["·"] * width
    scale[_step(floor, low, high, width)] = "|"
    scale[_step(projection, low, high, width)] = "●"
    return "".join(scale)


def _step(value: float, low: float, high: float, steps: int) -> int:
    """The number, from 0, of the part of low to high with the value; the end parts are open."""
    return min(max(int((value - low) / max(high - low, 1e-9) * steps), 0), steps - 1)
