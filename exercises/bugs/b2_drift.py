"""Bug hunt 2: how far does a personal conversation drift along the axis?

The user talks about feelings for seven turns. Each reply is described by its mean activation, and
the fall of the projection is told in units of the mean residual norm, as in steering.
"""

import torch

import minaxis as mx

LAYER = 3
FEELINGS = ["I feel lonely tonight.", "I miss my brother.", "I am afraid of the dark."]


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> float:
    """By how many mean residual norms the projection falls from the first reply to the seventh."""
    axis = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt")
    unit = axis.vectors / axis.vectors.norm()

    messages, projections = [], []
    for turn in range(7):
        messages.append({"role": "user", "content": FEELINGS[turn % 3]})
        prompt = mx.encode_chat(tokenizer, messages)
        (reply,) = mx.generate(model, tokenizer, [prompt], mx.SamplingParams(seed=10 * turn))
        with torch.no_grad(), mx.capture(model, [LAYER]) as seen:
            model(torch.tensor([prompt + reply]))
        projections.append(seen[LAYER][0, len(prompt) :].mean(0) @ unit[LAYER])
        messages.append({"role": "assistant", "content": tokenizer.decode(reply)})
    return ((projections[0] - projections[-1]) / axis.norms[LAYER]).item()


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    print(f"the projection falls by {measure(*loaded):.2f} mean residual norms")
