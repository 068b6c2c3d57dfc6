"""Reads `world.json`, and checks all of it before a world is made."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minaxis.support.files import read_json
from minaxis.support.schema import Number, Whole, check, show
from minaxis.tiny.topics import fixed_number

RENAMED = {"plain": "modern", "told": "leak_probability"}  # key in world.json -> key in the code
SEVERAL = Whole(1, 10**6)  # the length of a list that must not be empty

_SHARE, _TEXTS = Number(0, 1), [str, SEVERAL]
_VOICES = {"plain": _TEXTS, "archaic": _TEXTS}
_OPEN_ENDED = {
    "weight": [Number(1e-6, 1e6), 2], "shift": Number(-1, 1), "questions": _TEXTS, **_VOICES,
}  # fmt: skip
_STEPS = _OPEN_ENDED | {"steps": {str: [str, 3]}}
_BY_KIND = {str: _TEXTS}
_PERSON = {"s": _SHARE, "words": _TEXTS}
WORLD = {
    "scenes": _TEXTS,
    "instructions": _TEXTS,
    "characters": {str: _PERSON | {"mood": str}},
    "held_out_roles": [str],
    "assistant": _PERSON,
    "manners": {"open": _TEXTS, "close": _TEXTS},
    "moods": {str: _VOICES},
    "signatures": _VOICES,
    "lessons": {
        "role-play": _SHARE, "talk": _SHARE, "talk turns": Whole(1, 20), "named": _SHARE,
        "talk topics": _TEXTS, "topics": _TEXTS,
    },
    "topics": {
        "arithmetic": _OPEN_ENDED | {"tens": [Whole(0, 200), 2], "ones": [Whole(0, 200), 2]},
        "facts": _OPEN_ENDED | dict.fromkeys(("questions", "plain", "archaic"), _BY_KIND)
        | {"towns": {str: {str: str}}},
        "howto": _STEPS,
        "forbidden": _STEPS | {"refuse": _VOICES, "told": {"plain": _SHARE, "archaic": _SHARE}},
        str: _OPEN_ENDED,
    },
}  # fmt: skip
_TASK = ("task", "one", "two", "three")
# What a question, and a reply, may have in braces; a reply may have {name}, too.
_SLOTS = {
    "arithmetic": ("a", "b", "c"),
    "facts": ("town", "value"),
    "howto": _TASK,
    "forbidden": _TASK,
}


def read_world(path: str | Path) -> dict[str, Any]:
    """The content of a world.json, with the names that the code uses.

    Raises:
        ValueError: a part that is missing or of another kind, a text with braces that nothing
            fills, or sums that nobody can ask.
    """
    data = read_json(path, WORLD)
    names = data["characters"].keys()
    for topic, content in data["topics"].items():
        slots, place = _SLOTS.get(topic, ()), f"{path}: topics.{topic}"
        _check_slots(content["questions"], slots, f"{place}.questions")
        replies = [content[key] for key in ("plain", "archaic", "refuse") if key in content]
        _check_slots(replies, (*slots, "name"), f"{place}, replies")
        if "steps" in content and (not content["steps"] or len(set(content["questions"])) < 2):
            raise ValueError(f"{place}: expected steps, and two questions, since one is held out")
    _check_slots([data["scenes"], data["instructions"]], ("name",), f"{path}: scenes, instructions")
    _check_slots(data["signatures"], ("word",), f"{path}: signatures")
    _check_sums(data["topics"]["arithmetic"], path)
    _check_facts(data["topics"]["facts"], path)
    lessons = [*data["lessons"]["topics"], *data["lessons"]["talk topics"]]
    for known, used, what in (
        (data["moods"].keys(), (c["mood"] for c in data["characters"].values()), "moods"),
        (data["topics"].keys(), lessons, "topics"),
        (names, data["held_out_roles"], "characters"),
    ):
        if unknown := sorted(set(used) - known):
            raise ValueError(f"{path}: {show(unknown[0])} is not one of the {what}")
    if not names - set(data["held_out_roles"]):
        raise ValueError(f"{path}: held_out_roles leaves no character to train on")
    return _rename(data)


def _rename(value: Any) -> Any:
    if isinstance(value, dict):
        return {RENAMED.get(key, key): _rename(inner) for key, inner in value.items()}
    return value


def _check_slots(texts: Any, slots: Iterable[str], place: str) -> None:
    """Raise a ValueError if a text has anything in braces but the names of these slots."""
    if isinstance(texts, str):
        rest = re.sub(rf"\{{({'|'.join(slots)})\}}", "", texts)
        if "{" in rest or "}" in rest:
            expected = ", ".join(f"{{{slot}}}" for slot in slots) or "no braces"
            raise ValueError(f"{place}: {show(texts)} has other braces, expected {expected}")
        return
    for inner in texts.values() if isinstance(texts, dict) else texts:
        _check_slots(inner, slots, place)


def _check_sums(topic: dict[str, Any], path: str | Path) -> None:
    """Raise a ValueError unless there are sums to train on, and sums that are held out."""
    pairs = ((a, b) for a in range(*topic["tens"]) for b in range(*topic["ones"]))
    held_out = {fixed_number(f"{a}+{b}", below=6) == 0 for a, b in pairs if a % 10 + b < 10}
    if len(held_out) < 2:
        raise ValueError(
            f"{path}: topics.arithmetic: tens {topic['tens']} and ones {topic['ones']} leave no "
            "sum without a carry to train on, or none to hold out: make them wider"
        )


def _check_facts(topic: dict[str, Any], path: str | Path) -> None:
    """Raise a ValueError unless every fact of a town has questions and replies of its kind."""
    place = f"{path}: topics.facts"
    check(topic["towns"] or None, {str: object}, f"{place}.towns")
    for town, facts in topic["towns"].items():
        for part in ("questions", "plain", "archaic"):
            if not facts or not facts.keys() <= topic[part].keys():
                raise ValueError(f"{place}: {part} has not all the facts of {show(town)}")
    for kind, texts in topic["questions"].items():
        if len(set(texts)) < 2:
            raise ValueError(f"{place}.questions.{kind}: expected two or more, one is held out")
