"""1. Read the residual stream with a hook. The full version: minaxis/hooks.py."""

import torch

import minaxis as mx


def read_stream(model: mx.Transformer, ids: torch.Tensor, layer: int) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    block = model.model.layers[layer]
    handle = block.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        model(ids)
    finally:
        handle.remove()
    return seen[0]
