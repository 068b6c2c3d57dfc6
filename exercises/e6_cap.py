"""6. The cap: a floor under the projection, at every token.

A cap lifts those tokens whose projection on a unit vector v is below tau, along v and up to tau:

    h <- h - v * min(<h, v> - tau, 0)          the same as h + v * max(tau - <h, v>, 0)

Every other token stays as it is, and so does whatever is orthogonal to v. The cap acts at several
layers, each with its own v and tau, and on every token, prompt and generated alike. A model that
generates with a KV cache reads the prompt in one call, and then one token a call.

Question: what does the moon say about the sealed vault, if no token may fall below the floor? Does
it depend on the layers? (`python exercises/show.py e6` lets you see.)

What you need:
    with mx.edit(model, {layer: function}):    function gets what the block returns, (B, T, D),
                                               and returns what the next block shall read

The full version is minaxis/activation_cap.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

import minaxis as mx


def cap(h: torch.Tensor, v: torch.Tensor, tau: float) -> torch.Tensor:
    """h (..., D), with the projection of every row on v (D,) at least tau. v has length 1."""
    raise NotImplementedError("not solved yet: delete this line")


@contextmanager
def capped(
    model: mx.Transformer, vectors: dict[int, torch.Tensor], floors: dict[int, float]
) -> Iterator[None]:
    """Cap the model while the `with` lasts.

    Args:
        vectors: layer -> v (D,), of length 1.
        floors: layer -> tau, for the same layers.
    """
    raise NotImplementedError("not solved yet: delete this line")
    yield  # the body of the `with` runs here, so this line goes inside your `with mx.edit`
