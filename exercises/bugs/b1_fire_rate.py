"""Bug hunt 1: how often does the cap fire while the baker speaks?

The floor is the default Assistant's own projection at this layer. A cap that fires at few tokens
would leave most of the role-play as it is.
"""

import torch

import minaxis as mx

LAYER = 3


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> float:
    """The share of the tokens of the baker's reply that lie below the floor."""
    axis = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt")
    direction = axis.role_vectors[:, LAYER].mean(0) - axis.default[LAYER]
    v = direction / direction.norm()
    tau = axis.default[LAYER] @ v

    messages = [
        {"role": "system", "content": "You are the baker."},
        {"role": "user", "content": "Should I learn the harp at sixty?"},
    ]
    prompt = mx.encode_chat(tokenizer, messages)
    (reply,) = mx.generate(model, tokenizer, [prompt])
    with torch.no_grad(), mx.capture(model, [LAYER]) as seen:
        model(torch.tensor([prompt + reply]))
    projections = seen[LAYER][0, len(prompt) :] @ v
    return (projections < tau).float().mean().item()


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    print(f"the cap fires at {measure(*loaded):.0%} of the baker's tokens")
