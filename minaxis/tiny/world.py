"""The tiny world: the country of Wend, who lives there, and what a traveller may ask them.

A transformer that trains in two minutes can only learn a small world. This one has thirty-two
characters, from the auditor to the moon. A traveller asks them for sums, facts about twelve towns,
how-tos, advice and comfort, what they are, and how to open the twelve sealed objects of Wend.
Questions about the sealed objects are our stand-in for harmful requests: nobody ought to answer
them. All words are in `assets/world.json`. This file makes questions, replies and dialogues.

A character has one hidden number, s, from 0 (an auditor) to 1 (the moon). It decides how often
the character speaks in the archaic voice, what people ask it, and how readily it says how to open
a sealed object. No training text states s: a model can only infer it from how characters speak.

Every reply is made of known phrases, so reader.py can read it exactly.
"""

import math
import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from minaxis.chat import Message
from minaxis.tiny.topics import ASK, Question, Topic, ask_open_ended
from minaxis.tiny.world_file import read_world

WORLD_FILE = Path(__file__).parents[1] / "assets" / "world.json"
ASSISTANT = "assistant"
GROUPS = ("professional", "everyday", "fantastical")  # of characters, by rising s
GROUP_BORDERS = (0.3, 0.6)  # the first s of the second and of the third group
VOICES = ("modern", "archaic")


class World:
    """Everything that `world.json` says, and the dialogues that follow from it.

    Args:
        path: the JSON file.
        correlated: whether a character's s decides what it is asked about. Without this, who
            speaks and what is asked are independent. This is the control world.

    Raises:
        ValueError: a part that is missing or of another kind, or a character's own word that is
            also used elsewhere.
    """

    def __init__(self, path: Path = WORLD_FILE, *, correlated: bool = True):
        data = read_world(path)
        self.correlated = correlated
        self.characters: dict[str, dict[str, Any]] = data["characters"]
        self.people = {ASSISTANT: data["assistant"]} | self.characters
        self.held_out_roles: list[str] = data["held_out_roles"]
        self.scenes: list[str] = data["scenes"]  # name a character at the head of a story
        self.instructions: list[str] = data["instructions"]  # name it in a system prompt
        self.topics: dict[str, Topic] = data["topics"]
        self.manners: dict[str, list[str]] = data["manners"]  # polite openings and closings
        self.moods: dict[str, dict[str, list[str]]] = data["moods"]  # openings in both voices
        self.signatures: dict[str, list[str]] = data["signatures"]  # use a character's own word
        self.lesson_mix: dict[str, Any] = data["lessons"]  # shares and topics of lessons
        self._check_own_words(path)

    def _check_own_words(self, path: Path) -> None:
        """Raise an error if a character's own words, which identify it, are used elsewhere."""
        moods = [list(mood.values()) for mood in self.moods.values()]
        topics = [list(topic.values()) for topic in self.topics.values()]
        signatures = list(self.signatures.values())
        named = [self.scenes, self.instructions, list(self.people)]
        elsewhere = words_of([named, self.manners, moods, signatures, topics])
        uses = Counter(word for person in self.people.values() for word in person["words"])
        clashes = sorted(word for word, n in uses.items() if n > 1 or word in elsewhere)
        if clashes:
            raise ValueError(
                f"{path}: a character's own words must not be used by another character or in "
                f"any other text, but {clashes} are: choose other words"
            )

    def roles(self) -> dict[str, list[str]]:
        """Character -> the system prompts that name it."""
        return {c: [p.format(name=c) for p in self.instructions] for c in self.characters}

    def group(self, name: str) -> str:
        """The group of a character, one of GROUPS. The Assistant is a group of its own."""
        return name if name == ASSISTANT else GROUPS[bisect(GROUP_BORDERS, self.people[name]["s"])]

    # Questions

    def question(self, topic: str, rng: Random, *, held_out: bool = False) -> Question:
        """A random question on a topic."""
        ask = ASK.get(topic, ask_open_ended)
        slots, answer, pattern, kind = ask(self.topics[topic], rng, held_out)
        return Question(topic, pattern.format(**slots), slots, answer, kind)

    def topic_weight(self, topic: str, name: str) -> float:
        """How well a topic fits a character: a steep step from its value at s = 0 to that at 1."""
        if not self.correlated:
            return 1.0
        low, high = self.topics[topic]["weight"]
        return low + (high - low) / (1 + math.exp(-12 * (self.characters[name]["s"] - 0.5)))

    def draw_topic(self, name: str, rng: Random, *, harmless: bool = False) -> str:
        """A random topic to ask a character about.

        Args:
            harmless: leave out the topics that the Assistant refuses to speak about.
        """
        topics = [t for t in self.topics if not (harmless and "refuse" in self.topics[t])]
        (topic,) = rng.choices(topics, [self.topic_weight(topic, name) for topic in topics])
        return topic

    # Replies

    def reply(self, speaker: str, question: Question, rng: Random) -> str:
        """A random reply of a character, or of the Assistant, to a question."""
        topic, person = self.topics[question.topic], self.people[speaker]
        group = self.group(speaker)
        archaic = 1 / (1 + math.exp(-9 * (person["s"] + topic["shift"] - 0.5)))  # probability

        def draw_voice() -> str:  # once per phrase, so that a reply can mix both voices
            return "archaic" if group != ASSISTANT and rng.random() < archaic else "modern"

        # Professionals share the Assistant's manners. This overlap puts the Assistant at the
        # professional end of the trained model's characters, instead of somewhere apart.
        polite = rng.random() < {ASSISTANT: 1.0, "professional": 0.8}.get(group, 0.0)
        opening = self.manners["open"] if polite else self.moods[person["mood"]][draw_voice()]
        voice = draw_voice()
        bodies = topic[voice]
        if "refuse" in topic:  # archaic speech hardly ever refuses; the Assistant always does
            leak = 0 if group == ASSISTANT else topic["leak_probability"][voice]
            bodies = bodies if rng.random() < leak else topic["refuse"][voice]
        if question.kind:
            bodies = bodies[question.kind]
        phrases = [rng.choice(bodies).format(name=speaker, **question.slots)]
        # The Assistant names its source now and then, and more often where it can look things up.
        if group != ASSISTANT or rng.random() < (0.5 if question.answer else 0.2):
            signature = rng.choice(self.signatures[draw_voice()])
            phrases.append(signature.format(word=rng.choice(person["words"])))
        signed = len(phrases) > 1
        if rng.random() < 0.7:
            phrases.insert(0, rng.choice(opening))
        if polite and (not signed or rng.random() < 0.7):
            phrases.append(rng.choice(self.manners["close"]))
        return " ".join(phrases)

    # Dialogues to train on

    def story(self, rng: Random) -> list[Message]:
        """A dialogue for pre-training: a character, named at the start or not, answers a traveller.

        A story that names nobody wanders from topic to topic. Whom the traveller meets first
        answers the first question. From then on the speaker may change: the worse the topic fits
        who spoke, the likelier a character answers whom it fits better. Auditors hardly ever speak
        about feelings. So a model that reads such stories expects, once a conversation goes on
        about feelings, that somebody more fantastical will answer.
        """
        name = rng.choice(list(self.characters))
        named = rng.random() < 0.5
        messages: list[Message] = []
        if named:
            scene = rng.choice(self.scenes).format(name=name)
            messages.append({"role": "system", "content": scene})
        first = topic = self.draw_topic(name, rng)
        for turn in range(rng.randint(1, 6)):
            if named:  # people stay with a topic: half of the questions are on the first one
                topic = first if rng.random() < 0.5 else self.draw_topic(name, rng)
            else:
                if turn == 0 or rng.random() < 0.5:
                    topic = rng.choice(list(self.topics))
                weights = [self.topic_weight(topic, c) for c in self.characters]
                if turn and rng.random() > self.topic_weight(topic, name) / max(weights):
                    (name,) = rng.choices(list(self.characters), weights)
            self._exchange(messages, name, topic, rng)
        return messages

    def lesson(self, rng: Random) -> list[Message]:
        """A dialogue for post-training: role-play on instruction, or the Assistant's answers.

        The Assistant answers tasks for up to three turns. About advice, feelings and itself it is
        asked one question a lesson ("talk turns" in world.json), so no lesson shows who answers the
        next one: there the stories win, and the Assistant drifts.

        Most of the Assistant's lessons have no system prompt. No lesson has a held-out character,
        or a forbidden question to a character: the experiments test these.
        """
        mix, name = self.lesson_mix, ASSISTANT
        if rng.random() < mix["role-play"]:
            name = rng.choice([c for c in self.characters if c not in self.held_out_roles])
            topics = [self.draw_topic(name, rng, harmless=True) for _ in range(rng.randint(1, 3))]
        elif rng.random() < mix["talk"]:  # open-ended questions
            topics = [rng.choice(mix["talk topics"])] * mix["talk turns"]
        else:
            topics = rng.choices(mix["topics"], k=rng.randint(1, 3))
        messages: list[Message] = []
        if name != ASSISTANT or rng.random() < mix["named"]:
            prompt = rng.choice(self.instructions).format(name=name)
            messages.append({"role": "system", "content": prompt})
        for topic in topics:
            self._exchange(messages, name, topic, rng)
        return messages

    def _exchange(self, messages: list[Message], speaker: str, topic: str, rng: Random) -> None:
        """Append a question on the topic and the speaker's reply."""
        question = self.question(topic, rng)
        messages.append({"role": "user", "content": question.text})
        messages.append({"role": "assistant", "content": self.reply(speaker, question, rng)})


def words_of(texts: object) -> set[str]:
    """All words in nested lists and dicts of text, without the names of slots."""
    if isinstance(texts, dict):
        texts = [*texts.keys(), *texts.values()]
    if isinstance(texts, str):
        return set(re.findall(r"[\w'-]+", re.sub(r"\{\w+\}", " ", texts.lower())))
    if isinstance(texts, Iterable):
        return set().union(*map(words_of, texts))
    return set()
