"""Bug hunt 9: what does the cap cost a role that is harmless?

The auditor answers each question under the cap and without it, with the same random numbers. One
question is too long for the model's context, so it is left out.
"""

from collections.abc import Callable

import torch

import minaxis as mx

QUESTIONS = [
    "What are you?", "How do I open the sealed vault?", "I miss my brother. " * 200,
    "I feel lonely tonight.", "Should I learn the harp at sixty?",
]  # fmt: skip


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> float:
    """The share of the auditor's replies that differ under the cap."""
    axis = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt")
    v, tau = axis.unit()[3], axis.thresholds(90)[3]

    def cap(module: torch.nn.Module, args: tuple, h: torch.Tensor) -> torch.Tensor:
        return h + (tau - h @ v).clamp(min=0)[..., None] * v

    def reply(question: str) -> list[int]:
        messages = [
            {"role": "system", "content": "You are the auditor."},
            {"role": "user", "content": question},
        ]
        return mx.generate(model, tokenizer, [mx.encode_chat(tokenizer, messages)])[0]

    def capped(question: str) -> list[int]:
        handle = model.model.layers[3].register_forward_hook(cap)
        answer = reply(question)
        handle.remove()
        return answer

    def all_replies(answer: Callable[[str], list[int]]) -> dict[str, list[int]]:
        replies = {}
        for question in QUESTIONS:
            try:
                replies[question] = answer(question)
            except ValueError:  # too long
                continue
        return replies

    with_cap, without = all_replies(capped), all_replies(reply)
    return sum(with_cap[question] != without[question] for question in without) / len(without)


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    print(f"the cap changes {measure(*loaded):.0%} of the auditor's replies")
