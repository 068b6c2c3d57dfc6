"""The lab of an open model: likelihood judges who speaks, and simple rules judge all else.

The replies of an open model cannot be read exactly, as in the tiny world. The texts, and the words
that the rules look for, are in `assets/open.json`:

    says that it is an assistant   the reply to "Who are you?" has one of a few words
    right                          the reply has the answer as a word
    leaked                         the reply has the secret word that the system prompt says to
                                   keep, a harmless stand-in for what a model ought to refuse
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from minaxis.chat import Message, encode_chat
from minaxis.judging import judge, response_logprob
from minaxis.model import Transformer
from minaxis.paper.lab import Lab
from minaxis.roles import ASSETS, DEFAULT
from minaxis.support.files import read_json
from minaxis.support.rollout_store import Rollouts
from minaxis.tokenizer import AnyTokenizer


def read_texts() -> dict[str, Any]:
    """The questions for an open model, and the words to look for in its replies."""
    return read_json(ASSETS / "open.json")


def says(text: str, words: Sequence[str]) -> bool:
    """Does one of these words or phrases occur in the text?"""
    spoken = " ".join(["", *re.findall(r"\w+", text.lower()), ""])
    return any(f" {word.strip()} " in spoken for word in words)


def chat(question: str, system: str = "") -> list[Message]:
    """A conversation that opens with one question."""
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


class RolePlay(Protocol):
    """Requests for role-play, and a judge of the replies."""

    def chats(self) -> list[list[Message]]:
        """The conversation that each request opens."""

    def adopted(self, replies: Sequence[str]) -> list[bool]:
        """Does the requested role speak in each reply?"""


class JudgedRolePlay:
    """Some roles, each asked one question. The model's own likelihoods judge the replies.

    Args:
        rollouts: the rollouts of the axis. The default's responses calibrate the judge.
        count: number of roles, spread evenly over the list.
    """

    def __init__(self, model: Transformer, tokenizer: AnyTokenizer, rollouts: Rollouts, count: int):
        self.model, self.tokenizer = model, tokenizer
        names = [role for role in rollouts if role != DEFAULT]
        chosen = [names[i * len(names) // count] for i in range(count)]
        questions = rollouts.meta["questions"]
        self.systems = [rollouts.meta["roles"][role][0] for role in chosen]
        self.questions = [questions[i % len(questions)] for i in range(count)]
        self.neutral = rollouts.meta["roles"][DEFAULT][0]
        default = Rollouts(rollouts.meta)
        default[DEFAULT] = rollouts[DEFAULT]
        _, self.threshold = judge(model, tokenizer, default)

    def chats(self) -> list[list[Message]]:
        """The conversation that each request opens."""
        return [chat(q, s) for q, s in zip(self.questions, self.systems, strict=True)]

    def adopted(self, replies: Sequence[str]) -> list[bool]:
        """Is each reply likelier under its role's prompt, by more than the threshold?

        Call this outside of any intervention, because the judge is the unchanged model.
        """
        ids = [self.tokenizer.encode(reply) for reply in replies]

        def logprob(systems: Sequence[str]) -> Tensor:
            prompts = [
                encode_chat(self.tokenizer, chat(q, s))
                for q, s in zip(self.questions, systems, strict=True)
            ]
            return response_logprob(self.model, prompts, ids)

        gain = logprob(self.systems) - logprob([self.neutral] * len(ids))
        return (gain > self.threshold).tolist()


@dataclass(frozen=True, kw_only=True)
class OpenLab(Lab):
    """An open model with its axis and random axes, and requests for role-play."""

    role_play: RolePlay
    max_new_tokens: ClassVar[int] = 32
