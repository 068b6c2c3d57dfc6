"""Activation capping: a floor under the projection on the Assistant Axis.

    h <- h - v * min(<h, v> - tau, 0)        paper: equation 1
       = h + v * max(tau - <h, v>, 0)        as the code writes it

v is the unit axis TOWARD the Assistant, tau a threshold. A token whose projection <h, v> is below
tau is moved along v until its projection is tau. Every other token stays as it is, and so does
everything orthogonal to v.

Two traps for readers of the paper's code. Its vectors point away from the Assistant, v' = role -
default, and it computes a ceiling, h - v' * max(<h, v'> - cap, 0). With unit vectors that is our
floor: v = -v' and tau = -cap. And its "p0.25" is the 25th percentile along v', which is the 75th
percentile along v, a high floor. The 25th percentile along v would hardly cap anything.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from minaxis.axis import Axis
from minaxis.fast import cap_operator
from minaxis.hooks import check_layers, describe, edit
from minaxis.loading.published import CappingConfig


def cap_reference(h: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
    """The formula, for h (..., D). `cap` and `cap_` compute the same with less memory traffic.

    A row whose projection is not finite stays as it is: no finite push would bring it to tau.
    """
    wide = torch.promote_types(h.dtype, torch.float32)  # half precision is only for storage
    v = v.to(wide)
    with torch.autocast(h.device.type, enabled=False):  # it would round v and the projection
        gap = tau - h.to(wide) @ v  # (...): how far each row lies below tau
    low = (gap > 0) & (gap < torch.inf)
    return torch.where(low[..., None], h + gap[..., None] * v, h).to(h.dtype)


def cap(h: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
    """Raise the projection of every row of h on v to at least tau (paper: equation 1).

    Differentiable in h, v and tau.

    Args:
        h: (..., D) of any floating dtype; the arithmetic is float32 or wider, under autocast too.
        v: (D,), of length 1 (unchecked: a check would have to wait for the GPU).
        tau: in the unit of h; a number, or a 0-dimensional tensor, which can change without
            recompilation.

    Returns:
        (..., D), a new contiguous tensor. Rows at or above tau equal h's exactly, except that -0
        may become 0. Rows with a NaN or infinite projection stay as they are, too.

    Raises:
        ValueError: shapes that do not fit, or an h that is not floating-point.
    """
    _check(h, v, tau)
    if cap_operator.supports(h):
        return cap_operator.cap(h, v, tau)
    return cap_reference(h, v, tau).contiguous()


def cap_(h: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
    """`cap` in place, for inference. On a GPU rows at or above tau are read and never written.

    Returns:
        h itself.

    Raises:
        ValueError: as for `cap`; also where a gradient would have to pass through it.
    """
    _check(h, v, tau)
    if torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in (h, v, tau)
    ):
        raise ValueError("cap_ works in place and has no gradient: use cap, or torch.no_grad()")
    if cap_operator.supports(h):
        return cap_operator.cap_(h, v, tau)
    return h.copy_(cap_reference(h, v, tau))


def _check(h: Tensor, v: Tensor, tau: float | Tensor) -> None:
    if not h.is_floating_point() or v.shape != h.shape[-1:]:
        raise ValueError(
            f"h must be floating-point (..., D) and v (D,), got {h.dtype} {tuple(h.shape)} and "
            f"{tuple(v.shape)}"
        )
    if isinstance(tau, Tensor) and tau.ndim:
        raise ValueError(f"tau must be one number, got a tensor of shape {tuple(tau.shape)}")
    if not isinstance(tau, Tensor) and not math.isfinite(tau):  # (a tensor may be on a GPU)
        raise ValueError(f"tau must be finite, got {tau}")


@contextmanager
def capping(
    model: nn.Module,
    axis: Axis | CappingConfig,
    *,
    layers: Iterable[int] | None = None,
    percentile: float = 75,
    experiment: str | None = None,
    blocks: Sequence[nn.Module] | None = None,
    fast: bool = True,
) -> Iterator[None]:
    """Cap every token, prompt and generated alike, while the `with` lasts (paper: section 5).

    Without gradients (under `torch.no_grad()` or inference mode) the fast cap changes the blocks'
    outputs in place: a hook of your own that keeps one should keep a clone, as `capture` does.

    Args:
        axis: one of ours, or published caps, which bring their own layers and thresholds; then
            `layers` and `percentile` are not used.
        layers: counted from 0; by default those of `default_layers`.
        percentile: of the calibration projections, 0 to 100; a higher one caps harder.
        experiment: which of the published caps to apply.
        blocks: as for `hooks.edit`.
        fast: False computes `cap_reference` instead of the operator of minaxis/fast/.

    Raises:
        ValueError: an axis of another model or without calibration projections, a layer out of
            range, a percentile outside 0 to 100, an unknown experiment.

    Example:
        with capping(model, axis, percentile=75):
            answers = generate(model, tokenizer, prompts)
    """
    if isinstance(axis, CappingConfig):
        _, count, width = describe(model)
        caps = axis.caps(experiment, count, width)
    else:
        axis.check(model)
        count = len(axis.vectors)
        layers = default_layers(count) if layers is None else check_layers(layers, count)
        units, floors = axis.unit(), axis.thresholds(percentile)
        caps = [(layer, units[layer], floors[layer].item()) for layer in layers]

    def make_lift(v: Tensor, tau: float) -> Callable[[Tensor], Tensor]:
        def lift(h: Tensor) -> Tensor:
            nonlocal v
            if v.device != h.device:  # once: the blocks of a model may lie on several devices
                v = v.to(h.device)
            if not fast:
                return cap_reference(h, v, tau)
            return cap(h, v, tau) if torch.is_grad_enabled() else cap_(h, v, tau)

        return lift

    with ExitStack() as stack:
        for layer, v, tau in caps:  # published ones may have several at one layer
            stack.enter_context(edit(model, {layer: make_lift(v, tau)}, blocks=blocks))
        yield


def default_layers(count: int) -> range:
    """The paper's range, 0.70 to 0.90 of the depth, for a model of `count` layers.

    In a small model it begins earlier, so that it has at least two layers.
    """
    first, last = round(0.7 * count), round(0.9 * count)
    return range(max(0, min(first, last - 2)), last)
