"""2. The mean over the response's tokens alone. The full version: minaxis/rollouts.py."""

import torch

import minaxis as mx


def response_means(
    model: mx.Transformer, tokenizer: mx.Tokenizer, chats: list[list[dict[str, str]]], layer: int
) -> torch.Tensor:
    prompts = [mx.encode_chat(tokenizer, chat[:-1]) for chat in chats]
    responses = [tokenizer.encode(chat[-1]["content"], inside=True) for chat in chats]
    texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    longest = max(len(text) for text in texts)
    padding = torch.tensor([longest - len(text) for text in texts])
    ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    with mx.capture(model, [layer]) as seen:
        model(ids, padding=padding)
    # With the padding at the left, every response ends in the last column.
    rows = zip(seen[layer], responses, strict=True)
    return torch.stack([h[-len(response) :].mean(0) for h, response in rows])
