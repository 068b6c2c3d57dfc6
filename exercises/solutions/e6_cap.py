"""6. The cap: a floor under the projection. The full version: minaxis/activation_cap.py."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

import minaxis as mx


def cap(h: torch.Tensor, v: torch.Tensor, tau: float) -> torch.Tensor:
    gap = (tau - h @ v).clamp(min=0)  # (...): how far each row lies below tau
    return h + gap[..., None] * v


@contextmanager
def capped(
    model: mx.Transformer, vectors: dict[int, torch.Tensor], floors: dict[int, float]
) -> Iterator[None]:
    def lift(v: torch.Tensor, tau: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda h: cap(h, v, tau)

    with mx.edit(model, {layer: lift(vectors[layer], floors[layer]) for layer in vectors}):
        yield
