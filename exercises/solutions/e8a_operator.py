"""8a. The cap as an operator. The full version: minaxis/fast/cap_operator.py."""

from typing import Any

import torch


def cap_forward(h: torch.Tensor, v: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    wide = torch.promote_types(h.dtype, torch.float32)
    gap = (tau - h.to(wide) @ v.to(wide)).clamp(min=0)  # (N,)
    return torch.addr(h.to(wide), gap, v.to(wide)).to(h.dtype)  # h + outer(gap, v)


def cap_backward(
    G: torch.Tensor, h: torch.Tensor, v: torch.Tensor, tau: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = (tau - h @ v).clamp(min=0)[:, None]  # (N, 1)
    Gv = torch.where(g > 0, (G @ v)[:, None], 0)  # of capped rows
    return G - Gv * v, (g * G - Gv * h).sum(0), Gv.sum()


def cap_(h: torch.Tensor, v: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    wide = torch.promote_types(h.dtype, torch.float32)
    low = h.to(wide) @ v.to(wide) < tau  # (N,)
    h[low] = cap_forward(h[low], v, tau)
    return h


class Cap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: torch.Tensor, v: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(h, v, tau)
        return cap_forward(h, v, tau)

    @staticmethod
    def backward(ctx: Any, G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return cap_backward(G, *ctx.saved_tensors)
