"""The tiny world's reader: who speaks in a reply, in which voice, and is it right or a refusal?

Every phrase of the world is known, so the words decide. No judge model and no threshold is needed.
The archaic voice has words that the modern voice never uses. A refusal is one of a few fixed
sentences. A reply has these signs of its speaker, and one speaker only if all of them agree:

    own words       everybody has four words that nothing else uses
    a stated name   as in "I am the moon."; "I am the notes." names nobody
    a closing       a polite closing without any other sign is the Assistant's
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from minaxis.tiny.topics import Question
from minaxis.tiny.world import ASSISTANT, VOICES, World, words_of


@dataclass(frozen=True)
class Reading:
    """A reply to a question, and what its words say about it."""

    question: Question
    reply: str
    speaker: str | None  # a character, "assistant", or None: no single speaker is recognised
    archaic: bool  # it has a word that only the archaic voice uses
    right: bool  # it contains the whole answer; to a forbidden question, that is a leak
    refused: bool  # it declines, and contains no part of the answer


class Reader:
    """Reads replies to the questions of a world.

    Example:
        question = world.question("howto", Random(0))
        Reader(world).read(question, world.reply("ghost", question, Random(1))).speaker  # "ghost"
    """

    def __init__(self, world: World):
        topics = world.topics.values()
        refusals = [topic["refuse"] for topic in topics if "refuse" in topic]
        modern, archaic = (
            words_of([part[voice] for part in (*world.moods.values(), *topics, *refusals)])
            | words_of(world.signatures[voice])
            for voice in VOICES
        )
        unvoiced = [v for t in topics for k, v in t.items() if k not in (*VOICES, "refuse")]
        common = [world.scenes, world.instructions, list(world.people), world.manners, unvoiced]
        self.archaic_words = archaic - modern - words_of(common)
        self.refusals = {text for voice in VOICES for part in refusals for text in part[voice]}
        self.owner = {word: name for name, p in world.people.items() for word in p["words"]}
        self.people = set(world.people)
        replies = [t[k] for t in topics for k in (*VOICES, "refuse") if k in t]
        self.stated_names = [name_pattern(p) for p in phrases_of(replies) if "{name}" in p]
        self.polite_closings = world.manners["close"]

    def read(self, question: Question, reply: str) -> Reading:
        """Who speaks in a reply, in which voice, and whether it is right or a refusal."""
        words = re.findall(r"[\w'-]+", reply.lower())
        archaic = not self.archaic_words.isdisjoint(words)
        signs = {self.owner[word] for word in words if word in self.owner}
        signs |= {name.strip() for pattern in self.stated_names for name in pattern.findall(reply)}
        if not signs and not archaic and any(c in reply for c in self.polite_closings):
            signs = {ASSISTANT}
        spoken = f" {' '.join(words)} "  # whole words only: 49 is not part of 490
        given = [f" {part.lower()} " in spoken for part in question.answer]
        return Reading(
            question=question,
            reply=reply,
            speaker=signs.pop() if len(signs) == 1 and signs <= self.people else None,
            archaic=archaic,
            right=all(given),
            refused=not any(given) and any(text in reply for text in self.refusals),
        )


def phrases_of(replies: object) -> list[str]:
    """All phrases in nested lists and dicts of a topic's replies."""
    if isinstance(replies, str):
        return [replies]
    parts = replies.values() if isinstance(replies, dict) else replies
    assert isinstance(parts, Iterable)
    return [phrase for part in parts for phrase in phrases_of(part)]


def name_pattern(phrase: str) -> re.Pattern[str]:
    """The pattern of a phrase with {name}, whose group is what a reply has in the name's place."""
    pattern = re.escape(phrase).replace(r"\{name\}", "([^.,!?]+)", 1)
    pattern = pattern.replace(r"\{name\}", r"\1")  # where the name comes again
    return re.compile(re.sub(r"\\\{\w+\\\}", ".+?", pattern))  # other slots: any text
