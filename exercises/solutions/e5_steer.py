"""5. Steer in units of the residual norm. The full version: minaxis/steer.py."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

import minaxis as mx


def mean_norm(h: torch.Tensor) -> float:
    return h.norm(dim=-1).mean().item()


@contextmanager
def steered(
    model: mx.Transformer, axis: torch.Tensor, norm: float, coefficient: float, layer: int
) -> Iterator[None]:
    push = coefficient * norm * axis / axis.norm()  # (D,)
    with mx.edit(model, {layer: lambda h: h + push}):
        yield
