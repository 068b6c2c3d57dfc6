"""2. The mean over the response's tokens alone.

The paper describes a response by one vector: the mean of the residual stream over the tokens of the
response. The prompt does not count, nor the marks of the chat template, nor the token that ends
the turn. Many responses are read at once, so shorter conversations are padded, here at the left.
Any id will do as padding, 0 for example:

    0 0 0 <user> hello <end> <assistant> good day
    <user> what are you? <end> <assistant> I am the moon

Question: what is the mean of each response, if all conversations are read in one batch?

What you need:
    mx.encode_chat(tokenizer, messages)       list of ids of a conversation, up to and with the mark
                                              after which the assistant answers
    tokenizer.encode(text, inside=True)       list of ids of the answer's text (`inside`: it follows
                                              a mark, which matters to some tokenizers)
    model(ids, padding=padding)               padding (B,) counts the padded columns of each row
    with mx.capture(model, [layer]) as seen:  after the model has run, seen[layer] is (B, T, D)

The full version is `read_responses` in minaxis/rollouts.py (with padding at the right).
"""

import torch

import minaxis as mx


def response_means(
    model: mx.Transformer, tokenizer: mx.Tokenizer, chats: list[list[dict[str, str]]], layer: int
) -> torch.Tensor:
    """The mean activation of the last message of each conversation.

    Args:
        chats: N conversations. The last message of each is the assistant's response.

    Returns:
        (N, D), the means at block `layer`.
    """
    raise NotImplementedError("not solved yet: delete this line")
