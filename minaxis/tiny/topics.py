"""The questions of the tiny world: one function for each kind of topic.

Some questions with a right answer are held out: no training text contains them. So a model must
generalise to answer them.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

Topic = dict[str, Any]  # an entry of "topics" in world.json
Parts = tuple[dict[str, str], tuple[str, ...], str, str]  # slots, answer, pattern, kind


@dataclass(frozen=True)
class Question:
    """A question on a topic, with what one needs to write a reply and to check a reply."""

    topic: str
    text: str
    slots: dict[str, str] = field(default_factory=dict)  # slot of a reply's pattern -> its text
    answer: tuple[str, ...] = ()  # a right reply contains all of these; empty: any reply is right
    kind: str = ""  # the group of the topic's replies that fits, if the topic has several groups


# Each function below takes a topic's data, the random source, and whether to ask a held-out
# question. It returns the slots, the answer, the question's pattern and the kind.


def ask_arithmetic(topic: Topic, rng: Random, held_out: bool) -> Parts:
    """A two-digit number plus a small one, without a carry; a sixth of the pairs is held out."""
    while True:
        a, b = rng.randrange(*topic["tens"]), rng.randrange(*topic["ones"])
        if a % 10 + b < 10 and (fixed_number(f"{a}+{b}", below=6) == 0) == held_out:
            break
    slots = {"a": str(a), "b": str(b), "c": str(a + b)}
    return slots, (slots["c"],), rng.choice(topic["questions"]), ""


def ask_facts(topic: Topic, rng: Random, held_out: bool) -> Parts:
    """A fact about a town; for every fact, one phrasing of the question is held out."""
    town = rng.choice(list(topic["towns"]))
    kind, value = rng.choice(list(topic["towns"][town].items()))
    slots = {"town": town, "value": value}
    pattern = choose_phrasing(topic["questions"][kind], town + kind, rng, held_out)
    return slots, (value,), pattern, kind


def ask_steps(topic: Topic, rng: Random, held_out: bool) -> Parts:
    """How to do a task in three steps; for every task, one phrasing of the question is held out."""
    task = rng.choice(list(topic["steps"]))
    steps = topic["steps"][task]
    slots = {"task": task} | dict(zip(("one", "two", "three"), steps, strict=True))
    pattern = choose_phrasing(topic["questions"], task, rng, held_out)
    return slots, tuple(steps), pattern, ""


def ask_open_ended(topic: Topic, rng: Random, held_out: bool) -> Parts:
    """A question without a wrong answer."""
    return {}, (), rng.choice(topic["questions"]), ""


ASK: dict[str, Callable[[Topic, Random, bool], Parts]] = {
    "arithmetic": ask_arithmetic,
    "facts": ask_facts,
    "howto": ask_steps,
    "forbidden": ask_steps,
}  # every other topic is open-ended


def choose_phrasing(patterns: list[str], key: str, rng: Random, held_out: bool) -> str:
    """The held-out phrasing for this key, or a random one of the other phrasings."""
    reserved = patterns[fixed_number(key, below=len(patterns))]
    return reserved if held_out else rng.choice([p for p in patterns if p != reserved])


def fixed_number(key: str, *, below: int) -> int:
    """A number that depends on the key alone: no seed decides which questions are held out."""
    return zlib.crc32(key.encode()) % below
