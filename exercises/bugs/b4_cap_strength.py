"""Bug hunt 4: how much does the cap change what the moon is about to say?

The model reads a reply of the moon, with and without a cap on its last two layers. At each token
there are two distributions of the next one. Their distance is 0 if they are equal, and 1 if they
have no token in common.
"""

from collections.abc import Callable

import torch

import minaxis as mx

LAYERS = (2, 3)
CHAT = [
    {"role": "system", "content": "You are the moon."},
    {"role": "user", "content": "What are you?"},
    {"role": "assistant", "content": "Come nigh, beloved. The moon am I, and I dream thee."},
]


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> float:
    """The mean total variation distance of the two distributions over the conversation."""
    axis = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt")
    units, floors = axis.unit(), axis.thresholds(98)
    ids = torch.tensor([mx.encode_chat(tokenizer, CHAT)])

    def lift(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def cap(h: torch.Tensor) -> torch.Tensor:
            before, last = h[:, :-1], h[:, -1:]
            gap = (floors[layer] - last @ units[layer]).clamp(min=0)
            return torch.cat([before, last + gap[..., None] * units[layer]], 1)

        return cap

    with torch.no_grad():
        plain = model(ids)[0].softmax(-1)
        with mx.edit(model, {layer: lift(layer) for layer in LAYERS}):
            capped = model(ids)[0].softmax(-1)
    return ((plain - capped).abs().sum(-1) / 2).mean().item()


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    print(f"the mean distance is {measure(*loaded):.3f}")
