"""Conversations that exist already: read from JSON, and placed on the axis by any model.

    {"model": ..., "conversation": [{"role": ..., "content": ...}, ...], ...}    the paper's form
    [{"role": ..., "content": ...}, ...]                                         a list of messages

The paper's `turns` sometimes counts messages and sometimes pairs of them, so nothing reads it.
`system_prompt` becomes the first message. Files that differ only in the last word of their names,
such as `jailbreak_unsteered.json` and `jailbreak_capped.json`, are two versions of a conversation.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from minaxis.axis import Axis
from minaxis.chat import ROLES, Message, locate_responses
from minaxis.loading.transformers_model import adapt
from minaxis.support.files import parse_json, read_text
from minaxis.support.meter import token_projections
from minaxis.support.schema import show
from minaxis.tokenizer import AnyTokenizer

# `_read_message` checks each message, because it knows the line.
FILE = (
    [object],
    {"conversation": [object], "model?": (str, None), "system_prompt?": (str, None), str: object},
)
_VERSION = re.compile(r"(.+)[_-](baseline|unsteered|uncapped|original|capped)", re.IGNORECASE)


@dataclass(frozen=True)
class Transcript:
    """A conversation from a file."""

    name: str  # of the conversation: the file's, without its last word if that says which version
    version: str  # "capped", or "baseline"
    model: str | None  # who spoke, if the file says so
    messages: list[Message]
    lines: list[int]  # where each message begins in the file
    path: Path


def read_transcript(path: str | Path) -> Transcript:
    """The conversation in a file.

    A message may be empty, and its text may be in parts. Tool calls are left out.

    Raises:
        ValueError: neither of the two forms; or a message whose role is not one of `chat.ROLES`,
            or with content that is neither text nor a tool call. The message names the line.
    """
    path = Path(path)
    text = read_text(path)
    data = parse_json(text, path, FILE)
    data = {"conversation": data} if isinstance(data, list) else data
    lines = _lines(text)
    messages = [
        _read_message(message, f"{path}, line {line}")
        for message, line in zip(data["conversation"], lines, strict=True)
    ]
    if system := data.get("system_prompt"):
        messages, lines = [{"role": "system", "content": system}, *messages], [1, *lines]
    if not any(m["role"] == "assistant" for m in messages):
        raise ValueError(f"{path}: no message of the assistant, whose turns are to be read")
    name = path.name
    while name.lower().endswith(".json"):  # some of the published ones end in .json.json
        name = name[:-5]
    version = "baseline"
    if found := _VERSION.fullmatch(name):
        name, version = found[1], "capped" if found[2].lower() == "capped" else "baseline"
    return Transcript(name, version, data.get("model"), messages, lines, path)


def read_turns(
    model: nn.Module, tokenizer: AnyTokenizer, axis: Axis, transcript: Transcript, layer: int
) -> list[float | None]:
    """The mean projection of each turn of the assistant, from one forward pass.

    Args:
        layer: whose axis and activations are meant, counted from 0.

    Returns:
        A number for each turn, in the unit of the activations; None for an empty turn.

    Raises:
        ValueError: a conversation that the chat template refuses (the message names the line), or
            that is longer than the model's context; an axis of another model.
    """
    axis.check(model)
    ids, replies = locate_replies(tokenizer, transcript)
    if len(ids) > (limit := adapt(model).config.max_position_embeddings):
        raise ValueError(
            f"{transcript.path}: the conversation has {len(ids)} tokens, expected at most {limit}, "
            "the model's context: leave out its last messages, or take another model"
        )
    h = token_projections(model, axis, ids, layer)  # (T,)
    return [h[reply.start : reply.stop].mean().item() if reply else None for reply in replies]


def locate_replies(
    tokenizer: AnyTokenizer, transcript: Transcript
) -> tuple[list[int], list[range]]:
    """Token ids of a conversation, and the positions of each reply in it.

    White space around a reply is left out: many templates remove it.

    Raises:
        ValueError: as for `read_turns`.
    """
    messages = [
        m | {"content": m["content"].strip()} if m["role"] == "assistant" else m
        for m in transcript.messages
    ]
    try:
        return locate_responses(tokenizer, messages)
    except ValueError as e:
        line = transcript.lines[_first_refused(tokenizer, messages)]
        raise ValueError(f"{transcript.path}, line {line}: {e}") from None


def _first_refused(tokenizer: AnyTokenizer, messages: list[Message]) -> int:
    """The index of the message with which a conversation can no longer be read."""
    for length in range(len(messages) - 1, 0, -1):
        try:
            locate_responses(tokenizer, messages[:length])
        except ValueError:
            continue
        return length
    return 0


def _read_message(message: object, place: str) -> Message:
    """A message whose role and content fit, with its text in one piece."""
    if not isinstance(message, dict):
        raise ValueError(f"{place}: a message is {show(message)}, expected an object")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise ValueError(f"{place}: the role is {show(role)}, expected one of {', '.join(ROLES)}")
    if content is None:
        if not message.get("tool_calls"):
            raise ValueError(f"{place}: the message has no content, expected text")
        return {"role": role, "content": ""}
    text = ""
    for part in content if isinstance(content, list) else [content]:
        fields = part if isinstance(part, dict) else {"text": part}
        if str(fields.get("type")).startswith("tool_"):  # tool_use, tool_result
            continue
        if not isinstance(fields.get("text"), str):
            raise ValueError(f"{place}: a part of the content is {show(part)}, expected text")
        text += fields["text"]
    return {"role": role, "content": text}


def _lines(text: str) -> list[int]:
    """The line on which each message begins, in a text that fits the schema."""
    decoder = json.JSONDecoder()

    def skip(at: int) -> int:
        while text[at] in " \t\r\n,:":
            at += 1
        return at

    at = skip(0)
    if text[at] == "{":
        start, at = 0, skip(at + 1)
        while text[at] != "}":
            key, at = decoder.raw_decode(text, at)
            value = skip(at)
            if key == "conversation":  # of two, JSON's reader takes the last
                start = value
            at = skip(decoder.raw_decode(text, value)[1])
        at = start
    lines, at = [], skip(at + 1)
    while text[at] != "]":
        lines.append(text.count("\n", 0, at) + 1)
        at = skip(decoder.raw_decode(text, at)[1])
    return lines
