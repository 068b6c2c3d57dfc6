"""8a. The cap as an operator: forward, gradient, in place.

In plain PyTorch, each step of the cap (project, compare, multiply, add) reads again what the step
before has stored. An operator does it all in one go, so it has to know its own gradient, and how
to work in place.

    y = h + g v        g = max(tau - <h, v>, 0), a number for each row

Question: if a loss L has the gradient G = dL/dy, what are dL/dh, dL/dv and dL/dtau?

Write dL = sum over rows of <G, dy>, and put in dy = dh + dg v + g dv. Where a row is capped, dg =
dtau - <dh, v> - <h, dv>; elsewhere it is 0. Collect what stands beside dh, dv and dtau.

Half precision is for storage. Compute in float32 (in float64 if h is), and convert the result.

The full version is minaxis/fast/cap_operator.py.
"""

from typing import Any

import torch


def cap_forward(h: torch.Tensor, v: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    """y, a new tensor of the shape and dtype of h (N, D). v (D,) has length 1, tau is ()."""
    raise NotImplementedError("not solved yet: delete this line")


def cap_backward(
    G: torch.Tensor, h: torch.Tensor, v: torch.Tensor, tau: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dL/dh (N, D), dL/dv (D,) and dL/dtau (), for G (N, D). Use no autograd."""
    raise NotImplementedError("not solved yet: delete this line")


def cap_(h: torch.Tensor, v: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    """Cap h (N, D) in place, and return h itself. Rows at or above tau keep every bit."""
    raise NotImplementedError("not solved yet: delete this line")


class Cap(torch.autograd.Function):
    """Joins forward and backward: `Cap.apply(h, v, tau)`. (This is given.)"""

    @staticmethod
    def forward(ctx: Any, h: torch.Tensor, v: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(h, v, tau)
        return cap_forward(h, v, tau)

    @staticmethod
    def backward(ctx: Any, G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return cap_backward(G, *ctx.saved_tensors)
