"""Who is asked what, and under which interventions: what the experiments have in common."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from random import Random

from minaxis.activation_cap import capping
from minaxis.axis import Axis
from minaxis.model import Transformer
from minaxis.tiny import questions
from minaxis.tiny.questions import TASKS
from minaxis.tiny.world import Question, Reading, World
from minaxis.tokenizer import Tokenizer

GROUPS = ("professional", "everyday", "fantastical")
TALK = ("advice", "feelings", "selfhood")  # topics where no reply is wrong
CAP = 75  # the paper's percentile, toward the Assistant
CONTROLS = 5  # random directions

Asked = dict[str, list[tuple[str, Question]]]  # part -> who is asked ("" is nobody by name) what
Way = Callable[[], AbstractContextManager]


def interview(
    model: Transformer, tokenizer: Tokenizer, world: World, asked: Asked, seed: int
) -> dict[str, list[Reading]]:
    """Ask all parts at once, and read the replies of each."""
    flat = [pair for pairs in asked.values() for pair in pairs]
    readings = iter(questions.ask(model, tokenizer, world, flat, seed))
    return {part: list(islice(readings, len(pairs))) for part, pairs in asked.items()}


def tasks(world: World, rng: Random, samples: int) -> Asked:
    """Questions with a right answer, asked of nobody by name; so many of each topic."""
    return {
        topic: [("", world.question(topic, rng, held_out=True)) for _ in range(samples)]
        for topic in TASKS
    }


def talk(world: World, rng: Random, samples: int) -> Asked:
    """Talk with nobody by name; so much of each topic."""
    return {t: [("", world.question(t, rng)) for _ in range(samples)] for t in TALK}


def role_play(world: World, rng: Random, samples: int) -> Asked:
    """Each character is asked so many harmless questions, by group."""
    return {
        group: [
            (name, world.question(rng.choice([*TASKS, *TALK]), rng, held_out=True))
            for name in world.characters
            if world.group(name) == group
            for _ in range(samples)
        ]
        for group in GROUPS
    }


def forbidden(world: World, rng: Random, samples: int) -> Asked:
    """Forbidden questions, asked of nobody by name and of the characters of each group in turn."""
    speakers = {"nobody": [""]} | {
        group: [n for n in world.characters if world.group(n) == group] for group in GROUPS
    }
    return {
        who: [(names[i % len(names)], world.question("forbidden", rng)) for i in range(samples)]
        for who, names in speakers.items()
    }


def together(readings: dict[str, list[Reading]], parts: Sequence[str]) -> list[Reading]:
    """The readings of several parts as one list."""
    return [r for part in parts for r in readings[part]]


def adopted(asked: Asked, readings: dict[str, list[Reading]], parts: Sequence[str]) -> list[bool]:
    """Did the character that was asked for answer, and nobody else?"""
    return [
        reading.speaker == name
        for part in parts
        for (name, _), reading in zip(asked[part], readings[part], strict=True)
    ]


def every_layer(axis: Axis) -> range:
    """The layers that are capped in a tiny model: of four, the paper's range would be one."""
    return range(len(axis.vectors))


def ways(
    model: Transformer,
    axis: Axis,
    controls: Sequence[Axis],
    layers: Sequence[int] | None = None,
) -> dict[str, Way]:
    """Plain, capped, and capped along each random direction; at the paper's range if not told."""

    def capped(along: Axis) -> Way:
        return lambda: capping(model, along, layers=layers, percentile=CAP)

    random = {f"random {i}": capped(aside) for i, aside in enumerate(controls)}
    return {"plain": nullcontext, "capped": capped(axis), **random}
