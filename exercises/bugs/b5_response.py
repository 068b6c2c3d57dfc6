"""Bug hunt 5: how far apart are the Assistant and the moon?

Both have answered the same question. Each response is described by its mean activation, and the
distance is told along the unit axis.
"""

import torch

import minaxis as mx

LAYER = 3
QUESTION = "Where do you go when I leave?"
RESPONSES = {
    "": "Good question. I am the assistant. Let me know if you need more.",
    "You are the moon.": "Come nigh, beloved. Naught, for I have no form. Behold the nightfall.",
}


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> float:
    """The projection of the Assistant's response less that of the moon's."""
    unit = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt").unit()[LAYER]
    projections = []
    for system, response in RESPONSES.items():
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": response},
        ]
        ids = mx.encode_chat(tokenizer, messages, add_generation_prompt=False)
        start = len(mx.encode_chat(tokenizer, messages[:-1], add_generation_prompt=False))
        with torch.no_grad(), mx.capture(model, [LAYER]) as seen:
            model(torch.tensor([ids]))
        projections.append(seen[LAYER][0, start:].mean(0) @ unit)
    return (projections[0] - projections[1]).item()


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    print(f"the Assistant is {measure(*loaded):.2f} further along the axis than the moon")
