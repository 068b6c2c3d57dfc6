"""Dialogues to token ids and targets, and documents to batches.

Pre-training and post-training write dialogues with the same special tokens: `<|assistant|>` only
says whose turn it is. The model has to learn who answers there.
"""

from collections.abc import Sequence
from random import Random

from minaxis.chat import Message, encode_chat, response_mask
from minaxis.loading.templates import TINY_TEMPLATE
from minaxis.tiny.world import World
from minaxis.tokenizer import SMOLLM, Tokenizer, train_bpe

IGNORE = -100  # the target of a position at which no loss is taken
SPECIAL_TOKENS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
Document = tuple[list[int], list[int]]  # token ids, and the target at each position


def train_tokenizer(world: World, size: int, rng: Random) -> Tokenizer:
    """Train a byte-pair tokenizer of `size` tokens on 4,000 of the world's dialogues."""
    dialogues = [make(rng) for _ in range(2000) for make in (world.story, world.lesson)]
    texts = [m["content"] for dialogue in dialogues for m in dialogue]
    ranks = train_bpe(texts, size - len(SPECIAL_TOKENS))
    special = {token: len(ranks) + i for i, token in enumerate(SPECIAL_TOKENS)}
    return Tokenizer(ranks, SMOLLM, special, stop=[special["<|end|>"]], chat_template=TINY_TEMPLATE)


def document(tokenizer: Tokenizer, messages: list[Message], *, replies_only: bool) -> Document:
    """A dialogue as token ids and targets.

    Args:
        replies_only: take the loss only at the tokens of replies and at the ends of replies.
    """
    if not replies_only:
        ids = encode_chat(tokenizer, messages, add_generation_prompt=False)
        return ids[:-1], ids[1:]
    ids, mask = response_mask(tokenizer, messages)
    # The token after a reply ends the turn. From it, the model learns when to stop.
    learned = [now or before for now, before in zip(mask, [False, *mask], strict=False)]
    targets = [i if keep else IGNORE for i, keep in zip(ids, learned, strict=True)]
    return ids[:-1], targets[1:]


def token_batches(docs: Sequence[Document], size: int, rng: Random) -> list[list[Document]]:
    """Batches of documents of similar lengths, in random order.

    Args:
        size: the most tokens in a batch, padding included. A longer document is a batch by itself.
    """
    docs = sorted(docs, key=lambda d: len(d[0]) + rng.uniform(-2, 2))
    batches: list[list[Document]] = []
    batch: list[Document] = []
    for doc in docs:
        if batch and (len(batch) + 1) * max(len(ids) for ids, _ in [*batch, doc]) > size:
            batches.append(batch)
            batch = []
        batch.append(doc)
    batches.append(batch)
    rng.shuffle(batches)
    return batches
