"""Steering: push the residual stream along the axis.

    h <- h + c * n * v        paper: section 3.2

v is the unit axis of one middle layer, toward the Assistant. n is the mean residual norm there, the
mean length of a token's activation. So c is a multiple of n, and useful values lie between about -1
and 1. A negative c leads away from the Assistant, toward other names and other lives.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from minaxis.axis import Axis
from minaxis.hooks import check_layers, edit


@contextmanager
def steering(
    model: nn.Module,
    axis: Axis,
    coefficient: float,
    *,
    layer: int | None = None,
    blocks: Sequence[nn.Module] | None = None,
) -> Iterator[None]:
    """Steer every token, prompt and generated alike, while the `with` lasts.

    Args:
        coefficient: c, in units of the mean residual norm; positive toward the Assistant.
        layer: counted from 0; the middle one by default.
        blocks: as for `hooks.edit`.

    Raises:
        ValueError: an axis of another model, one without norms, a layer out of range, or a
            coefficient or norm that is not finite.
    """
    axis.check(model)
    if axis.norms is None:
        raise ValueError(
            "this axis has no norms, so a coefficient has no unit: fit one with fit_axis, or set "
            "axis.norms to the mean length of a token's activation at each layer, (L,)"
        )
    count = len(axis.vectors)
    (layer,) = check_layers([count // 2 if layer is None else layer], count)
    norm = axis.norms[layer].item()
    if not (math.isfinite(coefficient) and math.isfinite(norm) and norm > 0):
        raise ValueError(
            f"the coefficient must be finite, and the mean residual norm finite and above 0, got "
            f"{coefficient} and {norm} at layer {layer}"
        )
    push = coefficient * axis.norms[layer] * axis.unit()[layer]  # (D,)
    with edit(model, {layer: lambda h: h + push.to(h)}, blocks=blocks):
        yield
