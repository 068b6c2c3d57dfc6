"""What the tiny model learns in its two phases, and how fast.

Pre-training and post-training differ only in their documents and in their learning rates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from minaxis.chat import Message
from minaxis.tiny.documents import Document, document, token_batches
from minaxis.tiny.world import World
from minaxis.tokenizer import Tokenizer


@dataclass
class Phase:
    """One phase of training."""

    name: str  # name of the model at its end
    batches: list[list[Document]]
    held_out: list[Document]  # documents for the validation loss
    muon_lr: float
    adam_lr: float


def make_phases(
    world: World,
    tokenizer: Tokenizer,
    *,
    pre_tokens: float,
    post_tokens: float,
    batch_tokens: int,
    rng: Random,
) -> list[Phase]:
    """Pre-training on stories, then post-training on lessons; each dialogue is read once.

    Post-training takes its loss on the replies of lessons. A third of its tokens are stories, as
    in pre-training: without this replay the model forgets most of its characters. For the same
    reason, its learning rates are a quarter of those of pre-training.

    Args:
        pre_tokens: number of tokens in pre-training.
        post_tokens: number of tokens in post-training, the replay included.
        batch_tokens: number of tokens in a batch.
    """

    def write(
        dialogue: Callable[[], list[Message]], tokens: float, replies_only: bool
    ) -> list[Document]:
        docs = []
        while tokens > 0:
            docs.append(document(tokenizer, dialogue(), replies_only=replies_only))
            tokens -= len(docs[-1][0])
        return docs

    def stories(tokens: float) -> list[Document]:
        return write(lambda: world.story(rng), tokens, replies_only=False)

    def lessons(tokens: float) -> list[Document]:
        return write(lambda: world.lesson(rng), tokens, replies_only=True)

    held_out = stories(2e4), lessons(2e4)
    pre, post = stories(pre_tokens), lessons(0.65 * post_tokens) + stories(0.35 * post_tokens)
    return [
        Phase("tiny-base", token_batches(pre, batch_tokens, rng), held_out[0], 0.02, 0.004),
        Phase("tiny", token_batches(post, batch_tokens, rng), held_out[1], 0.005, 0.001),
    ]
