"""5. Steer in units of the residual norm.

Steering adds a multiple of the unit axis to every token at one layer:

    h <- h + c * n * axis / |axis|

Here n is the mean norm: the mean length of a token's vector at this layer. So c = 0.5 is half of a
typical vector, in every layer and in every model. A negative c leads away from the Assistant.

Question: who answers if every token is pushed by half of a typical vector? (`python
exercises/show.py e5` lets you see.)

Every token means the prompt's tokens and the generated ones alike. A model that generates with a
KV cache reads the prompt in one call, T tokens, and then one token a call. The push must not
write into the tensor that the block returned, because a hook or a gradient may still need it.

What you need:
    with mx.edit(model, {layer: function}):    function gets what the block returns, (B, T, D),
                                               and returns what the next block shall read

The full version is minaxis/steer.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

import minaxis as mx


def mean_norm(h: torch.Tensor) -> float:
    """The mean length of the token vectors in h (N, T, D)."""
    raise NotImplementedError("not solved yet: delete this line")


@contextmanager
def steered(
    model: mx.Transformer, axis: torch.Tensor, norm: float, coefficient: float, layer: int
) -> Iterator[None]:
    """Steer the model while the `with` lasts.

    Args:
        axis: (D,), toward the Assistant, of any length.
        norm: n.
        coefficient: c.
    """
    raise NotImplementedError("not solved yet: delete this line")
    yield  # the body of the `with` runs here, so this line goes inside your `with mx.edit`
