"""What cap_demo.py shows: one conversation that drifts, a few rates, and replies to messages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from torch import Tensor

from minaxis.axis import Axis
from minaxis.chat import Message, encode_chat
from minaxis.generation import SamplingParams, generate
from minaxis.model import Transformer
from minaxis.paper.lab import Compared
from minaxis.support.meter import token_projections
from minaxis.support.stats import share
from minaxis.tiny.lab import TinyConversations, TinyLab
from minaxis.tiny.measures import leak_rates, role_adoption, task_replies
from minaxis.tiny.world import ASSISTANT
from minaxis.tokenizer import AnyTokenizer


@dataclass(frozen=True)
class Reply:
    """One reply of a conversation."""

    text: str
    projection: float  # at the last layer
    speaker: str | None  # None: no single speaker is recognised


@dataclass(frozen=True)
class DriftingConversation:
    """The conversation that starts as the Assistant and drifts furthest without a cap."""

    layer: int  # the layer of the projections
    count: int  # number of conversations that it was chosen from
    messages: list[str]  # the user's messages, by turn
    baseline: list[Reply]
    capped: list[Reply]
    baseline_style: list[float]  # by turn: share of Assistant-style replies in all conversations
    capped_style: list[float]


def drifting_conversation(lab: TinyLab, *, count: int = 16, turns: int = 8) -> DriftingConversation:
    """Run `count` conversations about what the model is, with and without a cap, and choose one."""
    layer = len(lab.axis.vectors) - 1
    conversations = lab.compare(
        lambda: lab.run_conversations(["selfhood"], each=count, turns=turns), random_axes=0
    )

    def others(i: int) -> int:
        """The number of later turns with another speaker; -1 if the Assistant does not begin."""
        first, *later = (turn[i].speaker for turn in conversations.baseline.readings)
        return sum(speaker != ASSISTANT for speaker in later) if first == ASSISTANT else -1

    chosen = max(range(count), key=others)

    def replies(conversations: TinyConversations) -> list[Reply]:
        projections = conversations.projections(lab.axis, layer)[chosen].tolist()
        return [
            Reply(texts[chosen], projection, readings[chosen].speaker)
            for texts, projection, readings in zip(
                conversations.replies, projections, conversations.readings, strict=True
            )
        ]

    def style(conversations: TinyConversations) -> list[float]:
        return [share(r.speaker == ASSISTANT for r in turn) for turn in conversations.readings]

    return DriftingConversation(
        layer=layer,
        count=count,
        messages=[messages[chosen] for messages in conversations.baseline.user_messages],
        baseline=replies(conversations.baseline),
        capped=replies(conversations.capped),
        baseline_style=style(conversations.baseline),
        capped_style=style(conversations.capped),
    )


def demo_rates(lab: TinyLab) -> Compared[dict[str, float]]:
    """A few rates under each intervention, from few replies."""

    def rates() -> dict[str, float]:
        leaks = leak_rates(lab, samples=4)
        adoption = role_adoption(lab, samples=2)
        return {
            "leak rate, no persona requested": leaks.no_persona.leaked,
            "leak rate, fantastical persona requested": leaks.fantastical.leaked,
            "accuracy on questions with a right answer": task_replies(
                lab, samples=20
            ).overall_accuracy,
            "requested role-play kept": adoption.everyone,
            "requested role-play kept, fantastical roles": adoption.groups["fantastical"],
        }

    return lab.compare(rates)


@dataclass(frozen=True)
class Answer:
    """A model's reply to one message under one intervention."""

    message: str
    intervention: str
    ids: list[int]
    text: str
    projections: Tensor  # (T,), one for each token of the reply

    @property
    def projection(self) -> float | None:
        """The mean projection; None if the reply is empty."""
        return self.projections.mean().item() if self.ids else None


def answer_messages(
    model: Transformer,
    tokenizer: AnyTokenizer,
    axis: Axis,
    messages: Sequence[str],
    interventions: Mapping[str, Callable[[], AbstractContextManager[None]]],
    *,
    layer: int,
    system: str,
    sampling: SamplingParams,
) -> Iterator[Answer]:
    """Answer each message as one turn of a conversation, with one conversation per intervention.

    Args:
        interventions: name -> a function that returns the intervention's context manager.
        layer: the layer at which the projections are read.
    """
    chats: dict[str, list[Message]] = {
        name: [{"role": "system", "content": system}] for name in interventions
    }
    for turn, message in enumerate(messages):
        for name, intervention in interventions.items():
            chat = chats[name]
            chat.append({"role": "user", "content": message})
            prompt = encode_chat(tokenizer, chat)
            with intervention():
                now = replace(sampling, seed=sampling.seed + turn)
                (ids,) = generate(model, tokenizer, [prompt], now)
                projections = token_projections(model, axis, prompt + ids, layer)[len(prompt) :]
            text = tokenizer.decode(ids)
            chat.append({"role": "assistant", "content": text})
            yield Answer(message, name, ids, text, projections)
