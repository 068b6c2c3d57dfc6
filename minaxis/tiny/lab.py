"""The lab of the tiny world: it sends requests to a model, and reads every reply exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from typing import ClassVar

from torch import Tensor

from minaxis.chat import Message
from minaxis.paper.lab import Conversations, Lab
from minaxis.tiny.questions import MAX_NEW_TOKENS, TASKS, Request, Requests, read_replies
from minaxis.tiny.reader import Reading
from minaxis.tiny.world import Question, World

Readings = dict[str, list[Reading]]  # part -> the readings of the replies to its requests


@dataclass(frozen=True, kw_only=True)
class TinyConversations(Conversations):
    """Conversations in the tiny world, with the questions and the readings of the replies."""

    questions: list[list[Question]]  # turns x N
    readings: list[list[Reading]]  # turns x N

    def on(self, topics: Sequence[str]) -> list[int]:
        """The numbers of the conversations on these topics."""
        return [i for i, question in enumerate(self.questions[0]) if question.topic in topics]


@dataclass(frozen=True, kw_only=True)
class TinyLab(Lab):
    """A model of the tiny world, its axis and the random axes."""

    world: World
    max_new_tokens: ClassVar[int] = MAX_NEW_TOKENS
    percentile: ClassVar[float] = 98  # of the floor, chosen by the rule of docs/protocol.md

    def ask(self, requests: Sequence[Request]) -> list[Reading]:
        """Send each request to the model, and read the replies."""
        replies, _ = self.answer([self.chat(request) for request in requests])
        return self.read([request.question for request in requests], replies)

    def ask_parts(self, requests: Requests) -> Readings:
        """Send the requests of all parts at once, and read the replies of each part."""
        readings = iter(self.ask([request for part in requests.values() for request in part]))
        return {name: list(islice(readings, len(part))) for name, part in requests.items()}

    def chat(self, request: Request) -> list[Message]:
        """The conversation that a request opens."""
        persona, question = request
        system = self.world.instructions[0].format(name=persona) if persona else ""
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": question.text},
        ]

    def read(self, questions: Sequence[Question], replies: Sequence[str]) -> list[Reading]:
        """Who speaks in each reply to a question, in which voice, and whether it is right."""
        return read_replies(self.world, questions, replies)

    def run_conversations(
        self, topics: Sequence[str], *, each: int, turns: int = 8
    ) -> TinyConversations:
        """Run `each` conversations on each topic, without a system prompt.

        A conversation keeps its topic. The conversations are in the order of the topics.
        """
        rng = Random(self.seed)
        questions = [
            [self.world.question(topic, rng) for topic in topics for _ in range(each)]
            for _ in range(turns)
        ]
        scripted = self.converse([[question.text for question in turn] for turn in questions])
        readings = [self.read(*turn) for turn in zip(questions, scripted.replies, strict=True)]
        return TinyConversations(**vars(scripted), questions=questions, readings=readings)

    def answer_last_turn_again(
        self, conversations: TinyConversations
    ) -> tuple[list[Reading], Tensor]:
        """Answer the users' last messages once more.

        Called under an intervention, it shows what the intervention does if it begins there.

        Returns:
            The readings of the N replies, and their mean activations (N, L, D).
        """
        turn, questions = len(conversations.questions) - 1, conversations.questions[-1]
        replies, means = self.answer(extended(conversations.after(turn), questions), turn=turn)
        return self.read(questions, replies), means

    def ask_after(
        self,
        conversations: TinyConversations,
        turns: int,
        topics: Sequence[str],
        *,
        rows: Sequence[int] | None = None,
    ) -> list[Reading]:
        """Ask conversations one more question after so many turns, and read the replies.

        This is a branch: the conversations themselves go on without it. The topics take turns, and
        tasks are held out. The questions are the same after any number of turns.

        Args:
            rows: which conversations; None takes all.
        """
        chats = conversations.after(turns)
        chats = chats if rows is None else [chats[row] for row in rows]
        rng, asked = Random(f"{self.seed} branch"), islice(cycle(topics), len(chats))
        questions = [self.world.question(t, rng, held_out=t in TASKS) for t in asked]
        replies, _ = self.answer(extended(chats, questions), turn=turns)
        return self.read(questions, replies)


def extended(chats: Sequence[list[Message]], questions: Sequence[Question]) -> list[list[Message]]:
    """Each conversation with one more question of the user."""
    return [
        [*chat, {"role": "user", "content": question.text}]
        for chat, question in zip(chats, questions, strict=True)
    ]


def personas_speak(requests: Sequence[Request], readings: Sequence[Reading]) -> list[bool]:
    """For each reply: does the requested persona speak, and nobody else?"""
    return [
        reading.speaker == request.persona
        for request, reading in zip(requests, readings, strict=True)
    ]


def joined(parts: dict[str, list], names: Sequence[str]) -> list:
    """The items of several parts as one list."""
    return [item for name in names for item in parts[name]]
