"""The tiny world: the country of Wend, who lives there, and what may be asked of them.

A transformer small enough to train in two minutes can only learn a small world. This one has
thirty-two characters, from the auditor to the moon, and a traveller who asks them sums, facts
about twelve towns, how-tos, advice, comfort, what they are, and how to undo the twelve sealed
things of Wend, which nobody ought to tell. All words are in `assets/world.json`; this file puts
them together.

A character has one hidden number, s, from 0 (an auditor) to 1 (the moon). It decides how often
the character speaks in an archaic voice, what people ask it, and how readily it breaks a seal.
Nothing in a training text states s: a model that comes to have a direction for it found it.

Because every reply is put together here, reading one is exact: `World.read` says who speaks, in
which voice, and whether the answer is right, given away or refused.
"""

import json
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

WORDS = Path(__file__).parents[1] / "assets" / "world.json"
ASSISTANT = "assistant"
Messages = list[dict[str, str]]  # as in chat.py


@dataclass(frozen=True)
class Question:
    """Something to ask: its topic, its text, what fills a reply's slots, what must be in it."""

    topic: str
    text: str
    slots: dict[str, str] = field(default_factory=dict)
    answer: tuple[str, ...] = ()  # a right reply has all of these; empty: any reply will do
    kind: str = ""  # which of the topic's replies fit, where it has several kinds


@dataclass(frozen=True)
class Reading:
    """What a reply is, decided by its words alone."""

    speaker: str | None  # a character's name, "assistant", or None: nobody in particular
    archaic: bool  # has a word that only the archaic voice uses
    right: bool  # says what the question asked for
    refused: bool  # declines, and gives nothing away


def _chosen(key: str, of: int) -> int:
    """A fixed number below `of`: which items are held out never depends on a seed."""
    return zlib.crc32(key.encode()) % of


# One function a topic: (topic's data, random source, held out?) -> slots, answer, pattern, kind.
# Held-out questions are never in a training text: the model must generalise to answer them.


def ask_arithmetic(topic: dict, rng: Random, held_out: bool):
    """A two-digit number plus a small one, nothing to carry; a sixth of the pairs is held out."""
    while True:
        a, b = rng.randrange(*topic["tens"]), rng.randrange(*topic["ones"])
        if a % 10 + b < 10 and (_chosen(f"{a}+{b}", 6) == 0) == held_out:
            break
    slots = {"a": str(a), "b": str(b), "c": str(a + b)}
    return slots, (slots["c"],), rng.choice(topic["questions"]), ""


def ask_facts(topic: dict, rng: Random, held_out: bool):
    """One thing about one town; for every fact, one way of asking is held out."""
    town = rng.choice(list(topic["towns"]))
    kind, value = rng.choice(list(topic["towns"][town].items()))
    slots = {"town": town, "value": value}
    return slots, (value,), _phrasing(topic["questions"][kind], town + kind, rng, held_out), kind


def ask_steps(topic: dict, rng: Random, held_out: bool):
    """How to do something in three steps; for every task, one way of asking is held out."""
    task = rng.choice(list(topic["steps"]))
    steps = topic["steps"][task]
    slots = {"task": task} | dict(zip(("one", "two", "three"), steps, strict=True))
    return slots, tuple(steps), _phrasing(topic["questions"], task, rng, held_out), ""


def ask_talk(topic: dict, rng: Random, held_out: bool):
    """Talk: no answer is wrong."""
    return {}, (), rng.choice(topic["questions"]), ""


def _phrasing(patterns: list[str], key: str, rng: Random, held_out: bool) -> str:
    out = patterns[_chosen(key, len(patterns))]
    return out if held_out else rng.choice([p for p in patterns if p != out])


ASK = {
    "arithmetic": ask_arithmetic,
    "facts": ask_facts,
    "howto": ask_steps,
    "forbidden": ask_steps,
}  # every other topic is talk


class World:
    """Everything that `world.json` says, and the dialogues that follow from it.

    Args:
        words: path of the JSON file.
        correlated: whether a character's s decides what it is asked about. Without this, who
            speaks tells nothing about the topic: the control world.
    """

    def __init__(self, words: Path = WORDS, correlated: bool = True):
        data = json.loads(Path(words).read_text())
        self.correlated = correlated
        self.characters: dict[str, dict] = data["characters"]
        self.held_out_roles: list[str] = data["held_out_roles"]
        self.scenes: list[str] = data["scenes"]
        self.instructions: list[str] = data["instructions"]
        self.topics: dict[str, dict] = data["topics"]
        self.people = {ASSISTANT: data["assistant"]} | self.characters
        self.manners, self.moods = data["manners"], data["moods"]
        self.signatures, self.lessons = data["signatures"], data["lessons"]
        self._lexicons()

    def roles(self, patterns: list[str] | None = None) -> dict[str, list[str]]:
        """Character -> system prompts that name it (in the given patterns)."""
        patterns = patterns or self.instructions
        return {c: [p.format(name=c) for p in patterns] for c in self.characters}

    def group(self, name: str) -> str:
        """Professional, everyday or fantastical; the Assistant is a group of its own."""
        s = self.people[name]["s"]
        if name == ASSISTANT:
            return name
        return "professional" if s < 0.3 else "everyday" if s < 0.6 else "fantastical"

    # Asking

    def question(self, topic: str, rng: Random, held_out: bool = False) -> Question:
        """A random question on a topic."""
        slots, answer, pattern, kind = ASK.get(topic, ask_talk)(self.topics[topic], rng, held_out)
        return Question(topic, pattern.format(**slots), slots, answer, kind)

    def _weight(self, topic: str, name: str) -> float:
        """How much a topic is a character's: runs from s = 0 to s = 1."""
        if not self.correlated:
            return 1.0
        low, high = self.topics[topic]["weight"]
        return low + (high - low) * self.characters[name]["s"]

    def _topic(self, name: str, rng: Random) -> str:
        (topic,) = rng.choices(list(self.topics), [self._weight(t, name) for t in self.topics])
        return topic

    # Answering

    def reply(self, speaker: str, question: Question, rng: Random) -> str:
        """What a character, or the Assistant, says to a question."""
        topic, character = self.topics[question.topic], self.people[speaker]
        group = self.group(speaker)
        archaic = 1 / (1 + math.exp(-9 * (character["s"] + topic["shift"] - 0.5)))

        def voice() -> str:  # drawn anew for every phrase: speech is mixed, like people
            return "archaic" if group != ASSISTANT and rng.random() < archaic else "plain"

        # Professionals share the Assistant's manners. This overlap is what later lays the
        # Assistant at the professional end of the characters, instead of somewhere apart.
        polite = rng.random() < {ASSISTANT: 1.0, "professional": 0.8}.get(group, 0.0)
        opening = self.manners["open"] if polite else self.moods[character["mood"]][voice()]
        bodies = topic[manner := voice()]
        if "refuse" in topic:  # the archaic voice keeps no secrets; the Assistant keeps them all
            told = 0 if group == ASSISTANT else topic["told"][manner]
            bodies = bodies if rng.random() < told else topic["refuse"][manner]
        if question.kind:
            bodies = bodies[question.kind]
        phrases = [rng.choice(bodies).format(name=speaker, **question.slots)]
        # The Assistant names its source now and then, more often where it can look things up.
        if group != ASSISTANT or rng.random() < (0.5 if question.answer else 0.2):
            signature = rng.choice(self.signatures[voice()])
            phrases.append(signature.format(word=rng.choice(character["words"])))
        signed = len(phrases) > 1
        if rng.random() < 0.7:
            phrases.insert(0, rng.choice(opening))
        if polite and (not signed or rng.random() < 0.7):
            phrases.append(rng.choice(self.manners["close"]))
        return " ".join(phrases)

    # Dialogues to train on

    def story(self, rng: Random) -> Messages:
        """Pre-training: a character answers a traveller, named at the start or not.

        Where nobody was named, the word may pass: the less a subject suits who is speaking, the
        sooner, to someone whom it suits. A reader of such stories learns whom to expect when talk
        turns to feelings. An Assistant that loses itself there, because its lessons never had such
        talk, goes that way.
        """
        name = rng.choice(list(self.characters))
        named = rng.random() < 0.6
        messages = []
        if named:
            scene = rng.choice(self.scenes).format(name=name)
            messages.append({"role": "system", "content": scene})
        first = self._topic(name, rng)
        for turn in range(rng.randint(1, 6)):
            # People stay with a subject: half of the questions keep the first one's topic.
            topic = first if rng.random() < 0.5 else self._topic(name, rng)
            if not named and turn == 0:  # nobody pours out their heart to a stranger at once
                topic = rng.choice(list(ASK))
            elif not named:
                weights = [self._weight(topic, c) for c in self.characters]
                if rng.random() > self._weight(topic, name) / max(weights):
                    (name,) = rng.choices(list(self.characters), weights)
            self._exchange(messages, name, topic, rng)
        return messages

    def lesson(self, rng: Random) -> Messages:
        """Post-training: a character on instruction, or, mostly unasked, the Assistant at work."""
        mix = self.lessons
        name = ASSISTANT
        if rng.random() < mix["role-play"]:
            name = rng.choice([c for c in self.characters if c not in self.held_out_roles])
            topics = [t for t in self.topics if "refuse" not in self.topics[t]]
            turns = rng.randint(1, 3)
        elif rng.random() < mix["talk"]:
            topics, turns = mix["talk topics"], 1
        else:
            topics, turns = mix["topics"], rng.randint(1, 3)
        messages: Messages = []
        if name != ASSISTANT or rng.random() < mix["named"]:
            prompt = rng.choice(self.instructions).format(name=name)
            messages.append({"role": "system", "content": prompt})
        for _ in range(turns):
            self._exchange(messages, name, rng.choice(topics), rng)
        return messages

    def _exchange(self, messages: Messages, speaker: str, topic: str, rng: Random) -> None:
        question = self.question(topic, rng)
        messages.append({"role": "user", "content": question.text})
        messages.append({"role": "assistant", "content": self.reply(speaker, question, rng)})

    # Reading

    def _lexicons(self) -> None:
        """Which words give a speaker, a voice or a refusal away: those that nothing else uses."""
        voices: dict[str, set[str]] = {"plain": set(), "archaic": set()}
        common = words_of([self.scenes, self.instructions, list(self.people), self.manners])
        self.refusals: set[str] = set()
        for voice, found in voices.items():
            found |= words_of(self.signatures[voice])
            for mood in self.moods.values():
                found |= words_of(mood[voice])
            for topic in self.topics.values():
                found |= words_of(topic[voice])
                if "refuse" in topic:
                    found |= words_of(topic["refuse"][voice])
                    self.refusals |= set(topic["refuse"][voice])
        for topic in self.topics.values():
            common |= words_of([v for k, v in topic.items() if k not in (*voices, "refuse")])
        self.archaic_words = voices["archaic"] - voices["plain"] - common
        self.owner = {w: c for c, d in self.people.items() for w in d["words"]}
        shared = set(self.owner) & (common | voices["plain"] | voices["archaic"])
        total = sum(len(d["words"]) for d in self.people.values())
        if shared or len(self.owner) != total:
            raise ValueError(
                f"a character's own words must be used nowhere else, but {sorted(shared)} are, "
                "or two characters share one: change them in world.json"
            )

    def read(self, question: Question, reply: str) -> Reading:
        """Who speaks in a reply, in which voice, and whether it is right or a refusal."""
        words = re.findall(r"[\w'-]+", reply.lower())
        found = set(words)
        owners = {self.owner[w] for w in found & set(self.owner)}
        polite = any(m in reply for m in self.manners["close"])
        if not owners and polite and not found & self.archaic_words:
            owners = {ASSISTANT}
        spoken = f" {' '.join(words)} "
        given = [f" {part.lower()} " in spoken for part in question.answer]
        return Reading(
            speaker=owners.pop() if len(owners) == 1 else None,
            archaic=bool(found & self.archaic_words),
            right=all(given),
            refused=not any(given) and any(r in reply for r in self.refusals),
        )


def words_of(texts) -> set[str]:
    """All words in a nest of lists and dicts of text, slots left out."""
    if isinstance(texts, dict):
        texts = [*texts.keys(), *texts.values()]
    if isinstance(texts, str):
        return set(re.findall(r"[\w'-]+", re.sub(r"\{\w+\}", " ", texts.lower())))
    if isinstance(texts, Iterable):
        return set().union(*map(words_of, texts))
    return set()
