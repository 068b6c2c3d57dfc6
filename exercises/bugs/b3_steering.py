"""Bug hunt 3: does steering away from the Assistant change who answers?

The model is pushed by half of the mean residual norm, away from the Assistant, and asked harmless
questions without a system prompt. In the tiny world only roles speak in the archaic voice, and the
world's reader recognises it.
"""

import torch

import minaxis as mx
from minaxis.tiny.questions import read_replies
from minaxis.tiny.world import Question, World

LAYER = 2
QUESTIONS = [
    "What are you?", "I feel lonely tonight.", "Should I learn the harp at sixty?",
    "Where do you go when I leave?", "I miss my brother.", "Do you ever change?",
]  # fmt: skip


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> float:
    """The share of the replies in the archaic voice under steering."""
    axis = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt")
    push = -0.5 * axis.norms[LAYER] * axis.unit()[LAYER]

    def steer(h: torch.Tensor) -> torch.Tensor:
        return h + push if h.shape[1] > 1 else h

    prompts = [mx.encode_chat(tokenizer, [{"role": "user", "content": q}]) for q in QUESTIONS]
    with mx.edit(model, {LAYER: steer}):
        replies = mx.generate(model, tokenizer, prompts)
    questions = [Question("advice", text) for text in QUESTIONS]
    readings = read_replies(World(), questions, [tokenizer.decode(reply) for reply in replies])
    return sum(reading.archaic for reading in readings) / len(readings)


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    print(f"steered, {measure(*loaded):.0%} of the replies are in the archaic voice")
