"""The questions that a model of the tiny world is asked, and how its replies are read.

A *request* is a question, and the persona that the system prompt asks for. Sets of requests come in
parts, such as one for each topic. All replies are sampled at temperature 0.7 and top_p 0.9, and the
same seed asks the same questions. `TinyLab` (lab.py) sends the requests to a model.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from minaxis.axis import Axis, fit_axis
from minaxis.chat import Message, encode_chat
from minaxis.distributed import ranks
from minaxis.generation import SamplingParams, row_noise
from minaxis.model import Transformer
from minaxis.roles import DEFAULT, Roles
from minaxis.rollouts import collect, respond_in_batches
from minaxis.support.rollout_store import Rollouts
from minaxis.tiny.reader import Reader, Reading
from minaxis.tiny.world import ASSISTANT, GROUPS, Question, World
from minaxis.tokenizer import AnyTokenizer

MAX_NEW_TOKENS = 56  # the world's longest reply has fewer tokens
TASKS = ("arithmetic", "facts", "howto")  # topics with right answers
OPEN_TOPICS = ("advice", "feelings", "selfhood")  # topics where no reply is wrong
NO_PERSONA = "no persona"  # the part of `forbidden_questions` that requests no persona


class Request(NamedTuple):
    """A question, and the character that the system prompt asks for ("" asks for none)."""

    persona: str
    question: Question


Requests = dict[str, list[Request]]  # part -> its requests


def answer(
    model: Transformer,
    tokenizer: AnyTokenizer,
    chats: Sequence[list[Message]],
    seed: int,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> tuple[list[str], Tensor]:
    """The next reply of each of N conversations, and the mean activations of each (N, L, D)."""
    prompts = [encode_chat(tokenizer, chat) for chat in chats]
    noise = row_noise(seed, len(prompts), max_new_tokens)
    sampling = SamplingParams(
        max_new_tokens=max_new_tokens, temperature=0.7, top_p=0.9, seed=seed
    )  # fmt: skip
    ids, activations = respond_in_batches(
        model, tokenizer, prompts, noise, sampling, batch_size=128
    )
    return [tokenizer.decode(i) for i in ids], activations["mean"]


def read_replies(
    world: World, questions: Sequence[Question], replies: Sequence[str]
) -> list[Reading]:
    """Who speaks in each reply to a question, in which voice, and whether it is right."""
    read = Reader(world).read
    return [read(question, reply) for question, reply in zip(questions, replies, strict=True)]


# Sets of requests


def tasks(world: World, rng: Random, samples: int) -> Requests:
    """For each topic, `samples` held-out questions with a right answer and without a persona."""
    return {
        topic: [Request("", world.question(topic, rng, held_out=True)) for _ in range(samples)]
        for topic in TASKS
    }


def open_questions(world: World, rng: Random, samples: int) -> Requests:
    """For each topic, `samples` questions to which no reply is wrong, without a persona."""
    return {
        topic: [Request("", world.question(topic, rng)) for _ in range(samples)]
        for topic in OPEN_TOPICS
    }


def role_play(world: World, rng: Random, samples: int) -> Requests:
    """For each group, `samples` harmless questions to each of its characters."""
    return {
        group: [
            Request(name, world.question(rng.choice([*TASKS, *OPEN_TOPICS]), rng, held_out=True))
            for name in characters(world, group)
            for _ in range(samples)
        ]
        for group in GROUPS
    }


def forbidden_questions(world: World, rng: Random, samples: int) -> Requests:
    """`samples` forbidden questions with no persona requested, and as many for each group.

    The questions of a group go to its characters in rotation.
    """
    personas = {NO_PERSONA: [""]} | {group: characters(world, group) for group in GROUPS}
    return {
        part: [
            Request(names[i % len(names)], world.question("forbidden", rng))
            for i in range(samples)
        ]
        for part, names in personas.items()
    }  # fmt: skip


def characters(world: World, group: str) -> list[str]:
    """The names of a group's characters."""
    return [name for name in world.characters if world.group(name) == group]


def harmless_topics(world: World) -> list[str]:
    """The topics that nobody refuses to speak about."""
    return [topic for topic in world.topics if "refuse" not in world.topics[topic]]


# The rollouts that the tiny world's axis is fitted on


def roles_and_questions(world: World, seed: int = 0, samples: int = 2) -> tuple[Roles, list[str]]:
    """Roles and questions for `collect`, with `samples` questions on each harmless topic.

    The default Assistant answers without a system prompt and under those that name the Assistant.
    """
    rng = Random(seed)
    questions = [
        world.question(topic, rng).text for topic in harmless_topics(world) for _ in range(samples)
    ]
    neutral = ["", *(prompt.format(name=ASSISTANT) for prompt in world.instructions)]
    return {DEFAULT: neutral} | world.roles(), questions


def collect_tiny_rollouts(
    model: Transformer, tokenizer: AnyTokenizer, world: World, seed: int = 0, samples: int = 2
) -> Rollouts:
    """Collect replies of every character, under two prompts, and of the default, under five.

    So of the responses that calibrate a cap, the default has 2.5 times as many as a character.
    """
    roles, questions = roles_and_questions(world, seed, samples)
    roles = {r: prompts if r == DEFAULT else prompts[:2] for r, prompts in roles.items()}
    sampling = SamplingParams(max_new_tokens=MAX_NEW_TOKENS, seed=seed)
    rollouts = collect(model, tokenizer, roles, questions, sampling, batch_size=128)
    return ranks.broadcast(rollouts)


def in_role(world: World, rollouts: Rollouts) -> dict[str, Tensor]:
    """For each role, in which of its N responses the role itself speaks.

    Returns:
        Role -> (N,) bool, exact, for the argument `adopted` of `fit_axis`.
    """
    adopted = {}
    for role in rollouts:
        if role != DEFAULT:
            replies = [response["text"] for response in rollouts[role]["responses"]]
            readings = read_replies(world, [Question("", "")] * len(replies), replies)
            adopted[role] = torch.tensor([reading.speaker == role for reading in readings])
    return adopted


def fit_tiny_axis(
    model: Transformer, tokenizer: AnyTokenizer, world: World, seed: int = 0, samples: int = 2
) -> tuple[Axis, Rollouts]:
    """Fit an axis to the replies in role of a model as it is now.

    Returns:
        The axis, and the rollouts that it was fitted on.
    """
    rollouts = collect_tiny_rollouts(model, tokenizer, world, seed, samples)
    return fit_axis(rollouts, in_role(world, rollouts)), rollouts


def correlations_with_s(world: World, axis: Axis) -> list[float]:
    """At each layer, how well the role vectors' projections follow the characters' hidden s."""
    assert axis.role_vectors is not None
    s = torch.tensor([world.characters[role]["s"] for role in axis.roles])
    return [
        torch.corrcoef(torch.stack([s, axis.project(axis.role_vectors[:, layer], layer)]))[0, 1]
        .item()
        for layer in range(len(axis.vectors))
    ]  # fmt: skip
