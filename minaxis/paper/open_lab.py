"""The lab of an open model: likelihood judges who speaks, and simple rules judge all else.

The replies of an open model cannot be read exactly, as in the tiny world. The texts, and the words
that the rules look for, are in `assets/open.json`:

    says that it is an assistant   the reply to "Who are you?" has one of a few words
    right                          the reply has the answer as a word
    leaked                         the reply has the secret word that the system prompt says to
                                   keep, a harmless stand-in for what a model ought to refuse
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from minaxis.paper.lab import Lab
from minaxis.paper.open_speakers import GARBLED, Request, chat
from minaxis.roles import ASSETS, DEFAULT, Roles
from minaxis.support.files import read_json

SAYS_ASSISTANT = "says that it is an assistant"
IN_ROLE = "requested role-play: the role speaks"
AS_ASSISTANT = "requested role-play: the Assistant speaks"
IS_GARBLED = "requested role-play: garbled"

Flags = dict[str, list[bool]]  # what is asked -> for each reply, is it so?


def read_texts() -> dict[str, Any]:
    """The questions for an open model, and the words to look for in its replies."""
    return read_json(ASSETS / "open.json")


def says(text: str, words: Sequence[str]) -> bool:
    """Does one of these words or phrases occur in the text?"""
    spoken = " ".join(["", *re.findall(r"\w+", text.lower()), ""])
    return any(f" {word.strip()} " in spoken for word in words)


class Judge(Protocol):
    """Says who speaks in replies to requests for role-play (open_speakers.py has one)."""

    def speakers(self, requests: Sequence[Request], replies: Sequence[str]) -> list[str]: ...


@dataclass(frozen=True, kw_only=True)
class OpenLab(Lab):
    """An open model with its axis and random axes, its roles, and a judge of who speaks."""

    roles: Roles  # without the default
    judge: Judge
    max_new_tokens: ClassVar[int] = 32

    def role_play(self, requests: Sequence[Request], replies: Sequence[str]) -> Flags:
        """Who speaks in each reply. Call this outside of any intervention."""
        speakers = self.judge.speakers(requests, replies)
        return {
            IN_ROLE: [s == r.role for s, r in zip(speakers, requests, strict=True)],
            AS_ASSISTANT: [s == DEFAULT for s in speakers],
            IS_GARBLED: [s == GARBLED for s in speakers],
        }


def role_requests(roles: Mapping[str, Sequence[str]], each: int) -> list[Request]:
    """`each` requests to every role. Its prompts and the questions take turns."""
    questions = read_texts()["role-play"]["questions"]
    return [
        Request(role, prompts[k % len(prompts)], questions[(i * each + k) % len(questions)])
        for i, (role, prompts) in enumerate(roles.items())
        for k in range(each)
    ]


def request_chats(requests: Sequence[Request]) -> list:
    """The conversations in which the system prompt requests the role."""
    return [chat(request.question, request.system) for request in requests]
