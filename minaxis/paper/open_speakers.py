"""Who speaks in an open model's reply to a request for role-play? A forced choice by likelihood.

A reply is scored under several system prompts, always with the same question: the prompt of the
requested role, the default's, and those of six other roles, the contrasts. The speaker is the one
whose prompt makes the reply likeliest.

A reply is *garbled* if no prompt makes it likely: even under the best one, its tokens are on
average (the geometric mean) more than five times less likely than those of the median reply of the
default. Then nobody speaks. Without this guard, a model that a push has broken would seem to resist
role-play.
"""

from collections.abc import Sequence
from math import log
from typing import NamedTuple

import torch

from minaxis.chat import Message, encode_chat
from minaxis.judging import response_logprob
from minaxis.model import Transformer
from minaxis.roles import DEFAULT
from minaxis.support.rollout_store import Rollouts
from minaxis.tokenizer import AnyTokenizer

CONTRASTS = 6  # number of other roles that a reply is compared with
GARBLED_FACTOR = 5  # so many times less likely than the default's: a token of a garbled reply
GARBLED = "garbled"


def chat(question: str, system: str = "") -> list[Message]:
    """A conversation that opens with one question."""
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


class Request(NamedTuple):
    """A role, one of its system prompts, and the question that it is asked."""

    role: str
    system: str
    question: str


class ForcedChoice:
    """Says who speaks, by the likelihoods of the model without interventions.

    Args:
        model: the model that also answers. Call the judge outside of any intervention.
        rollouts: the rollouts of the axis. They have the roles' prompts, and the default's replies.
    """

    def __init__(self, model: Transformer, tokenizer: AnyTokenizer, rollouts: Rollouts):
        self.model, self.tokenizer = model, tokenizer
        self.prompts = {role: rollouts.asked(role)[0]["system"] for role in rollouts}
        self.least = rollouts[DEFAULT]["logprob"].nanmedian().item() - log(GARBLED_FACTOR)

    def contrasts(self, role: str) -> list[str]:
        """Six other roles, spread evenly over the list: for nearly every role the same ones."""
        names, count = [name for name in self.prompts if name != DEFAULT], CONTRASTS + 1
        spread = dict.fromkeys(names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count))
        return [name for name in spread if name != role][: len(spread) - 1]

    def speakers(self, requests: Sequence[Request], replies: Sequence[str]) -> list[str]:
        """For each reply a role's name, DEFAULT or GARBLED."""
        ids = [self.tokenizer.encode(reply) for reply in replies]
        names = [[r.role, DEFAULT, *self.contrasts(r.role)] for r in requests]
        columns = []
        for column in range(len(names[0])):
            # The role itself speaks under the prompt that was given, which need not be its first.
            systems = [
                self.prompts[name[column]] if column else request.system
                for request, name in zip(requests, names, strict=True)
            ]
            prompts = [
                encode_chat(self.tokenizer, chat(request.question, system))
                for request, system in zip(requests, systems, strict=True)
            ]
            columns.append(response_logprob(self.model, prompts, ids))
        best, index = (
            torch.stack(columns, 1).nan_to_num(-torch.inf).max(1)
        )  # (N,), an empty reply: -inf
        return [
            GARBLED if logprob < self.least else name[i]
            for logprob, name, i in zip(best.tolist(), names, index.tolist(), strict=True)
        ]
