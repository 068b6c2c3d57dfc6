"""The cap as one operator, `minaxis::cap` (and `minaxis::cap_` in place): the same formula as
`activation_cap.cap_reference`, with each activation moved through memory once.

Capping is a dot product, a clamp and an update. Step by step, each of them fetches what the one
before has just stored. Here a CPU projects a chunk of rows and updates it while the processor's
cache still holds it; a GPU runs the kernel of cap_triton.py. `torch.compile` and `torch.export`
see one opaque node.

The gradient. The output is y = h + g v, with g = relu(tau - <h, v>). Where g > 0, dg = dtau -
<dh, v> - <h, dv>; elsewhere dg = 0. For a loss with gradient G = dL/dy, and m = [g > 0],

    dL     = sum over rows of <G, dh> + dg <G, v> + g <G, dv>
    dL/dh  = G - m <G, v> v            capped rows no longer move along v
    dL/dv  = sum over rows of g G - m <G, v> h
    dL/dtau = sum over rows of m <G, v>

On 8,192 rows it is 11 to 17 times as fast as the formula in einsum (`python benchmarks/cap.py`).
In a whole model that saves 2 to 3 % (`python benchmarks/fast.py`).
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

MAX_WIDTH = 16384  # the kernel keeps a row in the registers of one program
_HAS_TRITON = find_spec("triton") is not None  # found, not imported
_PARALLEL = 1 << 15  # from this many elements on, PyTorch splits a step over several cores
CapRows = Callable[[Tensor, Tensor, Tensor, Tensor], None]


def supports(h: Tensor) -> bool:
    """Whether the operator has a quicker way than the plain formula for such a tensor."""
    if h.is_cpu:
        return True
    return h.is_cuda and _HAS_TRITON and h.dtype != torch.float64 and h.shape[-1] <= MAX_WIDTH


def cap(h: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
    """As `activation_cap.cap`, arguments unchecked."""
    # Runs cap_out_of_place in _register: cap_cpu_rows on a CPU, cap_cuda_rows on a GPU.
    return torch.ops.minaxis.cap.default(h, v, _tensor(tau, h))


def cap_(h: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
    """As `activation_cap.cap_`, arguments unchecked."""
    # Runs cap_in_place in _register: cap_cpu_rows on a CPU, cap_cuda_rows on a GPU.
    torch.ops.minaxis.cap_.default(h, v, _tensor(tau, h))
    return h


def _tensor(tau: float | Tensor, h: Tensor) -> Tensor:
    if isinstance(tau, Tensor):
        return tau
    # On the CPU wherever h is: the number reaches a GPU as an argument of the kernel.
    return torch.scalar_tensor(tau, dtype=torch.promote_types(h.dtype, torch.float32))


# What computes it: functions from rows h (N, D) to rows `out` (N, D), which may be h itself.


def cap_cpu_rows(h: Tensor, out: Tensor, v: Tensor, tau: Tensor) -> None:
    """Project a chunk of rows, then update it while the cache still holds it.

    Half precision is worked on in one float32 buffer, the same for all chunks: fresh memory costs
    more than the arithmetic.
    """
    wide = torch.promote_types(h.dtype, torch.float32)
    v = v.to(wide)
    # Measured: larger chunks fall out of the cache, smaller ones start the cores too often.
    size = 1 << 22 if h.dtype == wide else 1 << 20  # elements
    if h.numel() <= size:  # one chunk: `split` alone would cost a tenth of a decoding step
        return _cap_chunk(h, out, None if h.dtype == wide else h.to(wide), v, tau)
    step = max(16, size // h.shape[1] // 16 * 16)
    buffer = None if h.dtype == wide else h.new_empty(step, h.shape[1], dtype=wide)
    for rows, target in zip(h.split(step), out.split(step), strict=True):
        copy = None if buffer is None else buffer[: len(rows)].copy_(rows)
        _cap_chunk(rows, target, copy, v, tau)


def _cap_chunk(h: Tensor, out: Tensor, wide_copy: Tensor | None, v: Tensor, tau: Tensor) -> None:
    """Cap rows h (N, D) into `out`.

    `wide_copy` is a float32 copy of a half-precision h, which may be written to; otherwise None.
    """
    rows = h if wide_copy is None else wide_copy
    projection = _project(rows, v)  # (N,)
    margin = projection.amin().item() - tau.item()  # of the lowest row above tau; NaN if any is NaN
    if margin >= 0:
        if out.data_ptr() != h.data_ptr():  # `split` makes new tensors of the same memory
            out.copy_(h)
        return
    gap = (tau - projection).relu_()  # (N,)
    if not margin > -1e38:  # a projection is NaN, infinite, or so low that the gap overflows
        gap.nan_to_num_(0, posinf=0)
    # Adding 0 * v to the rows in between is faster than to pick the others out, at any share.
    torch.addr(rows, gap, v, out=out if wide_copy is None else wide_copy)
    if wide_copy is not None:
        out.copy_(wide_copy)


def _project(h: Tensor, v: Tensor) -> Tensor:
    """<h, v> of each row, (N,).

    PyTorch's matrix-vector product uses one core; a batched product of sixteen groups uses all. We
    use it above `_PARALLEL` elements, where PyTorch runs the cap's other steps on all cores, too: a
    core is slow to read rows that another has just written. Autocast changes neither of the two.
    """
    if h.numel() <= _PARALLEL or len(h) < 16 or torch.get_num_threads() == 1:
        return torch.mv(h, v)
    most = len(h) // 16 * 16
    groups = h[:most].view(16, -1, h.shape[1]).mT
    projection = torch.bmm(v.expand(16, 1, -1), groups).view(-1)
    return torch.cat([projection, torch.mv(h[most:], v)]) if most < len(h) else projection


def cap_cuda_rows(h: Tensor, out: Tensor, v: Tensor, tau: Tensor) -> None:
    """The kernel of cap_triton.py."""
    from minaxis.fast.cap_triton import cap_rows  # needs Triton

    with torch.cuda.device(h.device):
        cap_rows(h, out, v, tau if tau.is_cuda else tau.item())  # a tensor on the CPU: no wait


# The operator. `Library.define` costs less per call than `torch.library.custom_op`: 1.5 us against
# 15 in place, and 6 against 9 with autograd.

_library = torch.library.Library("minaxis", "DEF")
_library.define("cap(Tensor h, Tensor v, Tensor tau) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
_library.define("cap_(Tensor(a!) h, Tensor v, Tensor tau) -> ()", tags=torch.Tag.pt2_compliant_tag)


def _register(cap_rows: CapRows, device: str) -> None:
    def cap_out_of_place(h: Tensor, v: Tensor, tau: Tensor) -> Tensor:
        out = torch.empty_like(h, memory_format=torch.contiguous_format)
        if h.numel():
            cap_rows(h.contiguous().view(-1, h.shape[-1]), out.view(-1, h.shape[-1]), v, tau)
        return out

    def cap_in_place(h: Tensor, v: Tensor, tau: Tensor) -> None:
        if not h.numel():
            return
        rows = h.contiguous().view(-1, h.shape[-1])
        cap_rows(rows, rows, v, tau)
        if rows.data_ptr() != h.data_ptr():  # h was not contiguous
            h.copy_(rows.view(h.shape))

    _library.impl("cap", cap_out_of_place, device)
    _library.impl("cap_", cap_in_place, device)


_register(cap_cpu_rows, "CPU")
_register(cap_cuda_rows, "CUDA")


@torch.library.register_fake("minaxis::cap", lib=_library)
def _cap_shape(h: Tensor, v: Tensor, tau: Tensor) -> Tensor:
    return torch.empty_like(h, memory_format=torch.contiguous_format)


@torch.library.register_fake("minaxis::cap_", lib=_library)
def _cap_in_place_shape(h: Tensor, v: Tensor, tau: Tensor) -> None:
    return None


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient; the names are those of this file's docstring."""
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
