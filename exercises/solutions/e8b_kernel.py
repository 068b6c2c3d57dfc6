"""8b. The cap as a Triton kernel. The full version: minaxis/fast/cap_triton.py."""

import torch
import triton
import triton.language as tl


@triton.jit
def cap_kernel(h, v, tau, width, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    column = tl.arange(0, WIDTH)
    inside = column < width
    at = h + tl.program_id(0) * width + column
    x = tl.load(at, mask=inside, other=0.0)
    direction = tl.load(v + column, mask=inside, other=0.0).to(tl.float32)
    wide = x.to(tl.float32)
    gap = tau - tl.sum(wide * direction)
    if gap > 0:
        tl.store(at, (wide + gap * direction).to(x.dtype), mask=inside)


def cap_rows(h: torch.Tensor, v: torch.Tensor, tau: float) -> None:
    rows, width = h.shape
    cap_kernel[(rows,)](h, v, tau, width, WIDTH=triton.next_power_of_2(width))
