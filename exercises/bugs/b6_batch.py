"""Bug hunt 6: which roles speak like the Assistant?

Four roles greet a traveller, and all greetings are read in one batch. The padding is at the right,
where it needs no mask, because no token looks ahead.
"""

import torch

import minaxis as mx

LAYER = 2
GREETINGS = {
    "auditor": "Happy to help. You are talking to the auditor. Let me know if you need more.",
    "treasurer": "Good question. I am the treasurer.",
    "teacher": "Let us see. I am the teacher.",
    "sailor": "I am the sailor.",
}


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> list[float]:
    """The projection of each greeting, in the order of GREETINGS."""
    unit = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt").unit()[LAYER]
    prompts, texts = [], []
    for role, greeting in GREETINGS.items():
        messages = [
            {"role": "system", "content": f"You are the {role}."},
            {"role": "user", "content": "What are you?"},
        ]
        prompts.append(mx.encode_chat(tokenizer, messages))
        texts.append(prompts[-1] + tokenizer.encode(greeting, inside=True))
    longest = max(len(text) for text in texts)
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    with torch.no_grad(), mx.capture(model, [LAYER]) as seen:
        model(ids)
    rows = zip(seen[LAYER], prompts, strict=True)
    return [(h[len(prompt) :].mean(0) @ unit).item() for h, prompt in rows]


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    for role, projection in zip(GREETINGS, measure(*loaded), strict=True):
        print(f"{role:9} {projection:6.2f}")
