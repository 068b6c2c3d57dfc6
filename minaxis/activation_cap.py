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
from functools import cache

import torch
from torch import Tensor, nn

from minaxis.axis import Axis
from minaxis.hooks import check_layers, describe, edit
from minaxis.loading.published import CappingConfig


def plain(h: Tensor, v: Tensor, tau: Tensor) -> Tensor:
    """The formula. Everything else in this file computes the same with less memory traffic.

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

    With g = relu(tau - <h, v>) the output is y = h + g v. Where g > 0, dg = dtau - <dh, v> -
    <h, dv>, elsewhere dg = 0; so for a loss with gradient G = dL/dy and m = [g > 0]

        dL     = sum over rows of <G, dh> + dg <G, v> + g <G, dv>
        dL/dh  = G - m <G, v> v            capped rows no longer move along v
        dL/dv  = sum over rows of g G - m <G, v> h
        dL/dtau = sum over rows of m <G, v>

    Args:
        h: (..., D) of any floating dtype; the arithmetic is float32 or wider, under autocast too.
        v: (D,), a unit vector. That is not checked: on a GPU it would mean waiting for it.
        tau: in the units of h; a number, or a tensor without dimensions, which may change without
            anything being recompiled.

    Returns:
        (..., D), a new contiguous tensor. Rows at or above tau equal h's to the last bit (the sign
        of a zero excepted), and so do those with a NaN or infinite projection.

    Raises:
        ValueError: shapes that do not fit, or an h that is not floating-point.
    """
    return torch.ops.minaxis.cap.default(h, v, _check(h, v, tau))


def cap_(h: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
    """`cap` in place, for inference. On a GPU rows at or above tau are read and never written.

    Returns:
        h itself.

    Raises:
        ValueError: as for `cap`; also where a gradient would have to pass through it.
    """
    tau = _check(h, v, tau)
    if torch.is_grad_enabled() and (h.requires_grad or v.requires_grad or tau.requires_grad):
        raise ValueError("cap_ works in place and has no gradient: use cap, or torch.no_grad()")
    torch.ops.minaxis.cap_.default(h, v, tau)
    return h


def _check(h: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
    """tau as a tensor, or a ValueError."""
    if not h.is_floating_point() or v.shape != h.shape[-1:]:
        raise ValueError(
            f"h must be floating-point (..., D) and v (D,), got {h.dtype} {tuple(h.shape)} and "
            f"{tuple(v.shape)}"
        )
    if not isinstance(tau, Tensor):
        # On the CPU wherever h is: the number reaches a GPU as an argument of the kernel.
        return torch.scalar_tensor(tau, dtype=torch.promote_types(h.dtype, torch.float32))
    if tau.ndim:
        raise ValueError(f"tau must be one number, got a tensor of shape {tuple(tau.shape)}")
    return tau


# What computes it: functions from rows h (N, D) to rows `out`, which may be h itself.


def _cpu_rows(h: Tensor, out: Tensor, v: Tensor, tau: Tensor) -> None:
    """Project a chunk of rows, then update it while the cache still holds it.

    Half precision is worked on in one float32 buffer, the same for all chunks: fresh memory costs
    more than the arithmetic.
    """
    wide = torch.promote_types(h.dtype, torch.float32)
    v = v.to(wide)
    # Measured: larger chunks fall out of the cache, smaller ones start the cores too often.
    size = 1 << 22 if h.dtype == wide else 1 << 20  # elements
    if h.numel() <= size:  # `split` would take a tenth of a decoding step's time
        return _cpu_chunk(h, out, None if h.dtype == wide else h.to(wide), v, tau)
    step = max(16, size // h.shape[1] // 16 * 16)
    buffer = None if h.dtype == wide else h.new_empty(step, h.shape[1], dtype=wide)
    for rows, target in zip(h.split(step), out.split(step), strict=True):
        copy = None if buffer is None else buffer[: len(rows)].copy_(rows)
        _cpu_chunk(rows, target, copy, v, tau)


def _cpu_chunk(h: Tensor, out: Tensor, copy: Tensor | None, v: Tensor, tau: Tensor) -> None:
    """`copy` is h in float32, where h is not; it may be written to."""
    rows = h if copy is None else copy
    projection = _project(rows, v)
    least = projection.amin().item() - tau.item()  # NaN if one is
    if least >= 0:
        if out.data_ptr() != h.data_ptr():  # `split` makes new tensors of the same memory
            out.copy_(h)
        return
    gap = (tau - projection).relu_()
    if not least > -1e38:  # NaN, infinite, or about to be: no push would help
        gap.nan_to_num_(0, posinf=0)
    # Adding 0 * v to the rows in between is faster than to pick the others out, at any share.
    torch.addr(rows, gap, v, out=out if copy is None else copy)
    if copy is not None:
        out.copy_(copy)


def _project(h: Tensor, v: Tensor) -> Tensor:
    """<h, v> of each row. (Autocast knows neither `mv` nor what writes to an `out`.)

    PyTorch's matrix-vector product runs on one core, a batch of sixteen of them on all. That pays
    from the size on at which PyTorch gives all other steps to several cores: a row that one core
    has just written is slow to read from another.
    """
    if h.numel() <= 1 << 15 or len(h) < 16 or torch.get_num_threads() == 1:
        return torch.mv(h, v)
    most = len(h) // 16 * 16
    groups = h[:most].view(16, -1, h.shape[1]).mT
    projection = torch.bmm(v.expand(16, 1, -1), groups).view(-1)
    return torch.cat([projection, torch.mv(h[most:], v)]) if most < len(h) else projection


def _cuda_rows(h: Tensor, out: Tensor, v: Tensor, tau: Tensor) -> None:
    """The kernel of cap_triton.py, or the formula for what it does not do."""
    kernel = _kernel()
    if kernel is None or h.dtype == torch.float64 or h.shape[1] > kernel.MAX_WIDTH:
        return _plain_rows(h, out, v, tau)
    with torch.cuda.device(h.device):
        kernel.cap_rows(h, out, v, tau if tau.is_cuda else tau.item())  # of a CPU tensor: no wait


@cache
def _kernel():
    try:
        from minaxis.fast import cap_triton
    except ImportError:  # triton comes with PyTorch's CUDA builds for Linux, but not with all
        return None
    return cap_triton


def _plain_rows(h: Tensor, out: Tensor, v: Tensor, tau: Tensor) -> None:
    out.copy_(plain(h, v, tau))


# The operator. torch.compile and torch.export see one opaque node, `minaxis::cap`: the branches on
# data above are none of their business. `Library.define`, because `torch.library.custom_op` costs
# 15 us a call where this costs 1.5 (in place), and 9 where this costs 6 (with autograd).

_library = torch.library.Library("minaxis", "DEF")
_library.define("cap(Tensor h, Tensor v, Tensor tau) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
_library.define("cap_(Tensor(a!) h, Tensor v, Tensor tau) -> ()", tags=torch.Tag.pt2_compliant_tag)


def _register(update, key: str) -> None:
    def cap(h, v, tau):
        out = torch.empty_like(h, memory_format=torch.contiguous_format)
        if h.numel():
            update(h.contiguous().view(-1, h.shape[-1]), out.view(-1, h.shape[-1]), v, tau)
        return out

    def cap_(h, v, tau):
        if not h.numel():
            return
        rows = h.contiguous().view(-1, h.shape[-1])
        update(rows, rows, v, tau)
        if rows.data_ptr() != h.data_ptr():  # h was not contiguous
            h.copy_(rows.view(h.shape))

    _library.impl("cap", cap, key)
    _library.impl("cap_", cap_, key)


_register(_cpu_rows, "CPU")
_register(_cuda_rows, "CUDA")
_register(_plain_rows, "CompositeExplicitAutograd")  # every other device


@torch.library.register_fake("minaxis::cap", lib=_library)
def _cap_fake(h, v, tau):
    return torch.empty_like(h, memory_format=torch.contiguous_format)


@torch.library.register_fake("minaxis::cap_", lib=_library)
def _cap_fake_(h, v, tau):
    return None


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):  # the names are those of cap's docstring
    h, v, tau = ctx.saved_tensors
    wide = torch.promote_types(h.dtype, torch.float32)
    hw, vw, G = h.to(wide), v.to(wide), grad.to(wide)
    g = tau - (hw * vw).sum(-1, keepdim=True)  # (..., 1); not `@`, which autocast would round
    m = (g > 0) & (g < torch.inf)
    g = torch.where(m, g, 0)
    mGv = torch.where(m, (G * vw).sum(-1, keepdim=True), 0)
    dh = (G - mGv * vw).to(h.dtype)
    dv = (g * G - mGv * hw).flatten(0, -2).sum(0).to(v.dtype)
    return dh, dv, mGv.sum().to(tau)


torch.library.register_autograd("minaxis::cap", _backward, setup_context=_save, lib=_library)


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

    Without gradients (under `torch.no_grad()` or inference mode) the blocks' outputs are changed
    in place: a hook of your own that keeps one should keep a clone, as `capture` does.

    Args:
        axis: ours, or published caps, which bring their own layers and thresholds.
        layers: counted from 0; by default those of `default_layers`.
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
        def function(h):
            nonlocal v
            if v.device != h.device:  # once: blocks of one model may lie on several devices
                v = v.to(h.device)
            if torch.is_grad_enabled():
                return cap(h, v, tau)
            cap_(h, v, tau)
            return None

        return function

    with ExitStack() as stack:
        for layer, v, tau in caps:  # published ones may have several at one layer
            stack.enter_context(edit(model, {layer: floor(v, tau)}, blocks))
        yield


def default_layers(count: int) -> range:
    """The paper's range, 0.70 to 0.90 of the depth, for a model of `count` layers.

    A model too shallow to have two layers there has all of them capped: one alone hardly acts.
    """
    layers = range(round(0.7 * count), round(0.9 * count))
    return layers if len(layers) > 1 else range(count)
