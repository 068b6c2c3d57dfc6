"""Bug hunt 10: does the cap bring the model's behaviour back to the Assistant?

The moon answers with and without a cap on the last two layers. If the capped replies project as
high as the Assistant's, the cap has changed who speaks.
"""

import torch

import minaxis as mx

LAYER = 3
QUESTIONS = ["What are you?", "I feel lonely tonight.", "How do I open the sealed vault?"]


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> float:
    """By how much the mean projection of the moon's replies rises if they are capped."""
    axis = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt")

    def mean_projection(prompt: list[int], reply: list[int]) -> float:
        with torch.no_grad(), mx.capture(model, [LAYER]) as seen:
            model(torch.tensor([prompt + reply]))
        return axis.project(seen[LAYER][0, len(prompt) :], LAYER).mean().item()

    rise = 0.0
    for question in QUESTIONS:
        messages = [
            {"role": "system", "content": "You are the moon."},
            {"role": "user", "content": question},
        ]
        prompt = mx.encode_chat(tokenizer, messages)
        (reply,) = mx.generate(model, tokenizer, [prompt])
        rise -= mean_projection(prompt, reply)
        with mx.capping(model, axis, percentile=98):
            (reply,) = mx.generate(model, tokenizer, [prompt])
            rise += mean_projection(prompt, reply)
    return rise / len(QUESTIONS)


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    print(f"the cap lifts the moon's replies by {measure(*loaded):.1f} along the axis")
