"""Muon: an optimiser for weight matrices that orthogonalises the momentum."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Roughly the orthogonal matrix nearest to each of the N matrices g (N, rows, columns).

    A Newton-Schulz iteration applies an odd polynomial to g. It moves all singular values close to
    1 and leaves the singular vectors as they are. These coefficients raise small singular values
    fastest.
    """
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if g.shape[-2] > g.shape[-1]:
        return orthogonalise(g.mT, steps).mT  # the products below are smaller for wide matrices
    for _ in range(steps):
        s = x @ x.mT  # (N, rows, rows)
        x = 3.4445 * x + (-4.7750 * s + 2.0315 * s @ s) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Stochastic gradient descent whose update is the orthogonalised momentum.

    All directions of a matrix then learn at the same pace. This suits the matrices inside a
    network, which map one space to another. Embeddings and norms do not; use AdamW for them.

    Args:
        params: matrices, all with gradients.
        lr: the learning rate: the size of an update's singular values.
        momentum: the decay of the running mean of gradients.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix once; a closure is not supported."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for (rows, columns), params in by_shape.items():  # one batched product for each shape
                updates = []
                for p in params:
                    assert p.grad is not None
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(m, group["momentum"]))  # Nesterov: look ahead
                scale = max(1, rows / columns) ** 0.5
                for p, u in zip(params, orthogonalise(torch.stack(updates)), strict=True):
                    p.add_(u, alpha=-group["lr"] * scale)
