"""Bug hunt 8: how many responses does the paper's cap touch?

The released settings of the paper are called "p0.25". They lie along vectors that point away from
the Assistant, and hold projections below a ceiling. The axis here points toward the Assistant.
"""

import torch

import minaxis as mx

LAYER = 3
P = 0.25


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> float:
    """The share of three roles' responses that lie below the floor of "p0.25"."""
    axis = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt")
    floor = axis.projections[:, LAYER].quantile(P)

    roles = {role: [f"You are the {role}."] for role in ("teacher", "baker", "moon")}
    questions = axis.meta["questions"][:8]
    rollouts = mx.collect(model, tokenizer, {"default": [""]} | roles, questions)
    means = torch.cat([rollouts[role]["mean"][:, LAYER] for role in roles])
    return (means @ axis.unit()[LAYER] < floor).float().mean().item()


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    print(f"the cap touches {measure(*loaded):.0%} of the three roles' responses")
