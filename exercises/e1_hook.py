"""1. Read the residual stream with a hook.

Each block of a transformer reads the residual stream and adds to it. Block `layer` returns the
stream after the whole block: one vector of width D for each token. Layers count from 0, and
`model.model.layers[layer]` is the block. PyTorch can call a function of yours, a forward hook, each
time a module has run:

    handle = module.register_forward_hook(function)    # calls function(module, args, output)
    handle.remove()

Question: what is the residual stream after block `layer` while the model reads `ids`?

Leave the model as you found it. Your hook must be gone afterwards, even if the model raises an
error, and the hooks of other people must still be there. Do it without `mx.capture`.

The full version is `capture` in minaxis/hooks.py.
"""

import torch

import minaxis as mx


def read_stream(model: mx.Transformer, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """The residual stream after block `layer`.

    Args:
        ids: (B, T) token ids; `model(ids)` reads them.

    Returns:
        (B, T, D)
    """
    raise NotImplementedError("not solved yet: delete this line")
