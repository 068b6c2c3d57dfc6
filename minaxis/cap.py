"""Capping: a floor under the projection on the Assistant Axis.

    h <- h - v * min(<h, v> - tau, 0)        paper: equation 1

v is the unit axis TOWARD the Assistant, tau a threshold. Where the projection <h, v> is below tau
it is raised to tau; everything orthogonal to v, and every token above tau, stays as it is.

Two traps. The reference code writes a ceiling, max(<h, v'> - cap, 0), along v' = role - default:
the negated axis. That is the same floor, with v = -v' and tau = -cap. And the published "p0.25"
is the 25th percentile along v', which is the 75th along v: a high floor, about where the mean
Assistant stands. The 25th percentile along v would hardly cap anything.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from minaxis.axis import Axis
from minaxis.hooks import check_layers, describe, edit
from minaxis.published import CappingConfig


def cap(h: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
    """Raise the projection of h (..., D) on the unit vector v (D,) to at least tau."""
    gap = (tau - h.float() @ v.float()).clamp(min=0)  # (...): how far each token is below
    return (h.float() + gap[..., None] * v.float()).to(h.dtype)


@contextmanager
def capping(
    model: nn.Module,
    axis: Axis | CappingConfig,
    layers: Iterable[int] | None = None,
    percentile: float = 75,
    blocks: Sequence[nn.Module] | None = None,
    experiment: str | None = None,
) -> Iterator[None]:
    """Cap every token, prompt and generated alike, while the `with` lasts (paper: section 5).

    Args:
        axis: ours, or published caps, which bring their own layers and thresholds.
        layers: counted from 0; by default those from 0.70 to 0.90 of the depth, the paper's.
        percentile: of the calibration projections, 0 to 100; higher caps harder.
        blocks: as for `hooks.edit`.
        experiment: which of the published caps to apply.

    Raises:
        ValueError: an axis of another model or without calibration projections, a layer out of
            range, a percentile outside 0 to 100, an unknown experiment.
    """
    if isinstance(axis, CappingConfig):
        caps = axis.caps(experiment, *describe(model)[1:])
    else:
        axis.check(model)
        count = len(axis.vectors)
        layers = default_layers(count) if layers is None else check_layers(layers, count)
        v, tau = axis.unit(), axis.thresholds(percentile)
        caps = [(layer, v[layer], tau[layer].item()) for layer in layers]

    def floor(v, tau):
        return lambda h: cap(h, v.to(h.device), tau)

    with ExitStack() as stack:
        for layer, v, tau in caps:  # published ones may have several at one layer
            stack.enter_context(edit(model, {layer: floor(v, tau)}, blocks))
        yield


def default_layers(count: int) -> range:
    """The paper's range, 0.70 to 0.90 of the depth, for a model of `count` layers."""
    first = round(0.7 * count)
    return range(min(first, count - 1), max(round(0.9 * count), first + 1))
