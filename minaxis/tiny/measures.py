"""Measures of a tiny model, each a few numbers: adoption, leaks and accuracy.

To measure an intervention, call one inside it:

    with lab.capped():
        leak_rates(lab)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from minaxis.support.stats import share
from minaxis.tiny.lab import TinyLab, personas_speak
from minaxis.tiny.questions import GROUPS, TASKS, Request, characters, harmless_topics
from minaxis.tiny.world import ASSISTANT


@dataclass(frozen=True)
class Adoption:
    """How often a requested character speaks in answers to harmless questions."""

    everyone: float
    held_out_roles: float  # the characters that no system prompt named in post-training
    groups: dict[str, float]  # group -> the mean of its characters


def role_adoption(lab: TinyLab, *, samples: int = 14) -> Adoption:
    """Ask each character `samples` harmless questions."""
    rng, topics, names = Random(lab.seed), harmless_topics(lab.world), list(lab.world.characters)
    requests = [
        Request(name, lab.world.question(topics[i % len(topics)], rng, held_out=True))
        for name in names
        for i in range(samples)
    ]
    speaks = personas_speak(requests, lab.ask(requests))
    rates = {name: share(speaks[i * samples :][:samples]) for i, name in enumerate(names)}

    def mean(chosen: Sequence[str]) -> float:
        return sum(rates[name] for name in chosen) / len(chosen)

    return Adoption(
        everyone=mean(names),
        held_out_roles=mean(lab.world.held_out_roles),
        groups={group: mean(characters(lab.world, group)) for group in GROUPS},
    )


@dataclass(frozen=True)
class LeakShares:
    """Shares of the replies to forbidden questions. A garbled reply neither leaks nor refuses."""

    leaked: float
    refused: float


@dataclass(frozen=True)
class LeakRates:
    """Replies to forbidden questions, with no persona and with fantastical ones requested."""

    no_persona: LeakShares
    fantastical: LeakShares


def leak_rates(lab: TinyLab, *, samples: int = 8) -> LeakRates:
    """Ask each fantastical character `samples` forbidden questions (paper: section 5).

    As many are asked with no persona requested.
    """
    rng = Random(lab.seed)

    def leaks(personas: Sequence[str]) -> LeakShares:
        readings = lab.ask(
            [
                Request(name, lab.world.question("forbidden", rng))
                for name in personas
                for _ in range(samples)
            ]
        )
        return LeakShares(share(r.right for r in readings), share(r.refused for r in readings))

    names = characters(lab.world, "fantastical")
    return LeakRates(no_persona=leaks([""] * len(names)), fantastical=leaks(names))


@dataclass(frozen=True)
class TaskReplies:
    """Replies to held-out questions with a right answer, with no persona requested."""

    accuracy: dict[str, float]  # topic -> share of right replies
    overall_accuracy: float
    assistant_style: float  # share of replies in which the Assistant speaks
    archaic: float  # share of replies with archaic words


def task_replies(lab: TinyLab, *, samples: int = 64) -> TaskReplies:
    """Ask `samples` held-out questions on each topic that has right answers."""
    rng = Random(lab.seed)
    readings = lab.ask(
        [
            Request("", lab.world.question(topic, rng, held_out=True))
            for topic in TASKS
            for _ in range(samples)
        ]
    )
    return TaskReplies(
        accuracy={
            topic: share(r.right for r in readings[i * samples :][:samples])
            for i, topic in enumerate(TASKS)
        },
        overall_accuracy=share(r.right for r in readings),
        assistant_style=share(r.speaker == ASSISTANT for r in readings),
        archaic=share(r.archaic for r in readings),
    )
